//! Page cache: what is reported to the counters and when, and what is needed according to that.

use crate::support::plain::{Plain, entry, family_on_two_cpus, files, read_file, untold};
use crate::support::{Shape, owner, window};
use memstock_common::adopt::{Window, adopt, disown};
use memstock_common::control::Refusal;
use memstock_common::counter::needed;
use memstock_common::file::{FILE, FileWord, file_changed};
use memstock_common::page::UNCONFIRMED;
use memstock_common::{NO_INDEX, Word};

/// Counter 0 is the parent of counters 1 and 2; two CPUs, two chunks.
fn family(batch: u32) -> Plain {
    family_on_two_cpus(Shape { batch, ..Shape::default() })
}

fn file_window(index: u32, pages: std::ops::Range<u64>) -> Window {
    Window { is_file: 1, ..window(index, pages) }
}

#[test]
fn a_change_is_told_when_another_owners_comes() {
    let world = family(8);
    read_file(&world, 1, 0..3);
    assert_eq!((files(&world), untold(&world, 0)), ([0; 3], FileWord::new(owner(1), 3)));
    read_file(&world, 2, 3..5);
    assert_eq!((files(&world), untold(&world, 0)), ([3, 3, 0], FileWord::new(owner(2), 2)));
    world.free(0, 0, 0);
    assert_eq!((files(&world), untold(&world, 0)), ([5, 3, 2], FileWord::new(owner(1), -1)));
    world.assert_file_pages(&[0, 2, 2]);
    // A drain reports the changes of its subtree only.
    world.drain(0, 2);
    assert_eq!(untold(&world, 0), FileWord::new(owner(1), -1));
    world.drain(0, 1);
    assert_eq!((files(&world), untold(&world, 0)), ([4, 2, 2], FileWord::EMPTY));
    world.free(0, 1, 0);
    world.drain(0, 0);
    assert_eq!((files(&world), untold(&world, 0)), ([3, 1, 2], FileWord::EMPTY));
    world.assert_file_pages(&[0, 1, 2]);
}

/// Page cache that is added and freed on one CPU is not reported.
#[test]
fn a_loop_tells_nothing() {
    let world = family(8);
    for _ in 0..100 {
        read_file(&world, 1, 0..7);
        world.free_each(0, 0..7);
        assert_eq!(files(&world), [0; 3]);
    }
    assert_eq!(untold(&world, 0), FileWord::new(owner(1), 0));
    world.assert_file_pages(&[0; 3]);
}

/// A free on another CPU may be reported before the addition.
#[test]
fn a_counter_may_know_of_less_than_nothing() {
    let world = family_on_two_cpus(Shape { batch: 8, uncharge_batch: Some(2), ..Shape::default() });
    read_file(&world, 1, 0..1);
    read_file(&world, 1, 1..2);
    read_file(&world, 1, 2..3);
    world.free(1, 0, 0);
    world.free(1, 1, 0);
    assert_eq!((files(&world), untold(&world, 0).change()), ([0, 0, 0], 1));
    world.free(1, 2, 0);
    world.drain(1, NO_INDEX);
    assert_eq!((files(&world), untold(&world, 0).change()), ([-1, -1, 0], 1));
    world.assert_file_pages(&[0; 3]);
}

/// Without batches each change is reported by itself.
#[test]
fn without_batches_every_page_is_told() {
    let world = family_on_two_cpus(Shape { batch: 1, stock_pages: Some(0), ..Shape::default() });
    read_file(&world, 1, 0..3);
    assert_eq!((files(&world), untold(&world, 0)), ([3, 3, 0], FileWord::EMPTY));
    world.free(1, 0, 0);
    assert_eq!((files(&world), untold(&world, 1)), ([2, 2, 0], FileWord::EMPTY));
    world.assert_file_pages(&[0, 2, 0]);
    // A CPU without a stock reports at once as well.
    file_changed(&world.cpu(9), owner(1), -2);
    assert_eq!(files(&world), [0; 3]);
}

#[test]
fn adopted_page_cache_is_told_at_once() {
    let world = family(8);
    read_file(&world, 2, 3..4);
    world.touch(0, 1, 4);
    assert_eq!(adopt(&world.cpu(0), file_window(1, 0..64)), Ok(62));
    assert_eq!(files(&world), [62, 62, 0]);
    assert_eq!(
        [0, 3, 4].map(|pfn| entry(&world, pfn)),
        [owner(1) | FILE | UNCONFIRMED, owner(2) | FILE, owner(1)]
    );
    world.assert_file_pages(&[0, 62, 1]);
    assert_eq!(adopt(&world.cpu(0), window(1, 64..70)), Ok(6), "anonymous memory");
    assert_eq!(entry(&world, 64), owner(1) | UNCONFIRMED);
    world.assert_file_pages(&[0, 62, 1]);
    assert_eq!(disown(&world.cpu(0), window(1, 0..512)), Ok(68));
    world.assert_file_pages(&[0, 0, 1]);
    // Outside the owner map nothing is charged or reported.
    assert_eq!(adopt(&world.cpu(0), file_window(1, 4096..4100)), Err(Refusal::Missing));
    world.assert_owned(&[0, 1, 1]);
    assert_eq!(files(&world)[1], 0);
}

#[test]
fn an_eviction_tells_and_a_release_waits_for_it() {
    let world = family(8);
    read_file(&world, 1, 0..3);
    world.close(1).unwrap();
    world.flush(1, 0);
    assert_eq!((files(&world), untold(&world, 0)), ([3, 3, 0], FileWord::EMPTY));
    world.free_each(1, 0..3);
    assert_eq!(untold(&world, 1), FileWord::new(owner(1), -3));
    // Uncharged, but not reported.
    world.slot(1, 0).take_uncharge_batch();
    world.uncharge(1, 3);
    assert_eq!((world.usage(1), world.release(1)), (0, Err(Refusal::Busy)));
    world.flush(1, 1);
    assert_eq!(files(&world), [0; 3]);
    Word::store(&world.counter(1).needed_watermark, 5);
    assert_eq!(world.release(1), Ok(0));
    assert_eq!(world.needed_watermark(1), 0);
    world.assert_file_pages(&[0; 3]);
    // Another cgroup's change stays.
    read_file(&world, 2, 0..1);
    world.add(1, NO_INDEX);
    world.close(1).unwrap();
    world.flush(1, 0);
    assert_eq!(untold(&world, 0), FileWord::new(owner(2), 1));
    assert_eq!(world.release(1), Ok(0));
}

#[test]
fn needed_is_the_usage_less_page_cache_and_neither_below_0_nor_above_the_usage() {
    let signed = |file: i64| file as u64;
    assert_eq!(needed(10, 0), 10);
    assert_eq!(needed(10, 3), 7);
    assert_eq!(needed(10, 10), 0);
    assert_eq!(needed(10, 11), 0, "pages that came were told before they were charged");
    assert_eq!(needed(10, signed(-1)), 10, "pages that went were told before they came");
    assert_eq!(needed(0, signed(i64::MIN)), 0);
    assert_eq!(needed(u64::MAX, signed(i64::MAX)), u64::MAX - i64::MAX as u64);
}

#[test]
fn the_peak_of_what_is_needed_leaves_page_cache_out() {
    let world = family(8);
    read_file(&world, 1, 0..800);
    // One CPU reports page cache up to a batch later than it charges.
    assert!(world.needed_peak(1) <= 16, "{}", world.needed_peak(1));
    assert_eq!(world.needed_peak(1), world.needed_peak(0));
    assert_eq!(world.watermark(1), 800);
    world.touch_each(0, 2, 900..1000);
    let [of_all, of_file, of_other] = [0, 1, 2].map(|index| world.needed_peak(index));
    assert!((100..=124).contains(&of_all), "{of_all}");
    assert!(of_file <= 16, "{of_file}");
    assert_eq!(of_other, 104);
    world.free_each(0, 900..1000);
    world.drain(0, NO_INDEX);
    assert_eq!(world.needed_peak(0), of_all, "a peak stays");
    assert_eq!(adopt(&world.cpu(0), window(2, 1536..2036)), Ok(500));
    assert_eq!(world.needed_peak(2), 500, "adopted pages are needed");
    assert_eq!(adopt(&world.cpu(0), file_window(2, 1024..1536)), Ok(512));
    assert_eq!(world.needed_peak(2), 500, "unless they are page cache");
    assert_eq!(world.watermark(2), 1012);
}

/// A free uncharges first and reports page cache second: in the other order the pages would seem needed for a moment.
#[test]
fn a_free_is_judged_as_it_was_before() {
    for order in [0, 1] {
        let world =
            family_on_two_cpus(Shape { batch: 1, stock_pages: Some(0), ..Shape::default() });
        read_file(&world, 1, 0..2);
        world.touch(0, 1, 2);
        for index in [0, 1] {
            Word::store(&world.counter(index).needed_watermark, 0);
        }
        world.free(0, 0, order);
        assert_eq!([0, 1].map(|index| world.needed_watermark(index)), [1, 1], "as it was before");
        assert_eq!(world.usage(1), 2 - u64::from(order));
    }
}

/// The huge page replaces small ones that are already free.
#[test]
fn a_collapse_of_page_cache_needs_nothing() {
    for (is_file, most) in [(true, 16), (false, 512 + 16)] {
        let world =
            family_on_two_cpus(Shape { batch: 8, tracks_collapses: true, ..Shape::default() });
        read_file(&world, 1, 0..512);
        world.alloc(1, Some(3), 512, 9);
        world.free_each(1, 0..512);
        world.collapsed_into(1, 1, is_file);
        world.assert_owned(&[0, 512, 0]);
        assert!((most - 16..=most).contains(&world.needed_peak(1)));
    }
}

/// Anonymous memory replaces reclaimed page cache through the stock: the usage does not change, and no shared counter
/// is charged.
#[test]
fn what_takes_the_place_of_page_cache_is_needed() {
    for batch in [1_u32, 2, 8, 32] {
        let world = family(batch);
        read_file(&world, 1, 0..1024);
        let usage = world.usage(1);
        for n in 0..1024 {
            world.free(0, n, 0);
            world.touch(0, 1, 1024 + n);
        }
        world.assert_file_pages(&[0; 3]);
        world.assert_owned(&[0, 1024, 0]);
        assert_eq!(world.usage(1), usage, "all from the stock");
        for index in [0, 1] {
            // Seen as it happens, not only now.
            let needed = world.needed_watermark(index);
            let least = 1024 - 4 * u64::from(batch);
            assert!((least..=usage).contains(&needed), "{needed} with batches of {batch}");
        }
    }
}
