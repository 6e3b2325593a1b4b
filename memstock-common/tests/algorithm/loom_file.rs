//! Page cache that is added and freed, concurrent with requests of user space, under every interleaving that matters:
//! conservation of page cache, and what is needed.
//!
//! `support/checked.rs` describes how they are explored, and on which memory model.

use crate::support::checked::{Model, beside, explore, explore_bounded, explore_steps, shape};
use crate::support::{Shape, limited, owner, window};
use loom::sync::Arc;
use loom::thread;
use memstock_common::adopt::{Window, adopt, disown, doubt};
use memstock_common::control::Refusal;
use memstock_common::file::{FILE, file_changed};
use memstock_common::page::{UNCONFIRMED, owner_in};
use memstock_common::{Entry, NO_INDEX, NO_LIMIT, NOBODY};

/// Two sibling cgroups, and one below the first, on two CPUs.
fn family(batch: u32) -> Arc<Model> {
    let world = Model::new(Shape { cpus: 2, ..shape(3, batch) });
    world.add(0, NO_INDEX);
    world.add(1, NO_INDEX);
    world.add(2, 0);
    Arc::new(world)
}

fn entry(world: &Model, pfn: u64) -> u32 {
    world.entry(pfn).load()
}

/// All changes have been reported, and no page cache is left.
fn assert_all_told(world: &Model) {
    for cpu in 0..world.shape.cpus {
        world.drain(cpu, NO_INDEX);
    }
    world.assert_file_pages(&[0; 3]);
    for index in 0..3 {
        assert_eq!((world.file(index), world.usage(index)), (0, 0), "counter {index}");
    }
}

/// Releases a counter as user space does: flushes each CPU, and again once nothing is charged, for what came in
/// between. Returns whether the counter is free.
fn release(world: &Model, index: u32) -> bool {
    let flush = || (0..world.shape.cpus).map(|cpu| world.flush(index, cpu)).sum::<u32>();
    flush();
    if world.usage(index) != 0 {
        return false;
    }
    flush();
    match world.release(index) {
        Ok(_) => true,
        Err(refusal) => {
            assert_eq!(refusal, Refusal::Busy);
            false
        }
    }
}

/// The last page of a dying cgroup is page cache, which its CPU has reported or not. One CPU frees it while another
/// flushes and releases the cgroup, and registers its counter for another cgroup elsewhere.
#[test]
fn the_last_free_of_page_cache_beside_flush_and_release() {
    for (batch, is_told) in [(1, true), (2, false), (2, true)] {
        explore(move || {
            let world = family(batch);
            world.touch(1, 2, 0);
            world.cache(1, 0, 1);
            world.close(2).expect("a tracked cgroup");
            if is_told {
                world.flush(2, 1);
            }
            let (again, ()) = beside(
                &world,
                |world| release(world, 2) && world.register(limited(2, 1, NO_LIMIT)).is_ok(),
                |world| world.free(0, 0, 0),
            );
            world.assert_file_pages(&[0; 3]);
            assert!(again || release(&world, 2), "nothing is left");
            assert_eq!([0, 1, 2].map(|index| world.file(index)), [0; 3]);
            world.assert_owned(&[0; 3]);
        });
    }
}

/// Page cache added on one CPU and freed on another adds up to nothing, and neither change is reported when another
/// cgroup's turn uncharges the last page. A counter is not free while a change may still be reported to it.
#[test]
fn changes_that_add_up_to_nothing_are_told_before_a_release() {
    explore_bounded(|| {
        let world = family(3);
        world.touch(1, 2, 0);
        world.touch(1, 1, 1);
        world.drain(1, NO_INDEX);
        world.close(2).expect("a tracked cgroup");
        let (is_free, ()) = beside(
            &world,
            |world| release(world, 2),
            |world| {
                // Allocated long ago, by a task that has moved since.
                world.cache(1, 0, 1);
                world.free(0, 0, 0);
                world.free(0, 1, 0);
            },
        );
        world.assert_file_pages(&[0; 3]);
        assert!(is_free || release(&world, 2), "nothing is left");
        assert_all_told(&world);
    });
}

/// A page is added to the page cache while user space doubts and disowns it. If the mark appears in between, either may
/// leave the page to the next repair.
#[test]
fn added_beside_doubt_and_disown() {
    for nr_pages in [1, 2] {
        explore(move || {
            let world = family(2);
            world.touch_each(1, 2, 0..nr_pages);
            let repair = move |world: &Model| {
                let doubted = doubt(&world.cpu(0), window(2, 0..nr_pages)).expect("a cgroup");
                (doubted, disown(&world.cpu(0), window(2, 0..nr_pages)).expect("a cgroup"))
            };
            let ((doubted, disowned), ()) =
                beside(&world, repair, move |world| world.cache(1, 0, nr_pages as u32));
            assert!(disowned <= doubted && doubted <= nr_pages as u32);
            world.assert_owned(&[0, 0, nr_pages - u64::from(disowned)]);
            for pfn in 0..nr_pages {
                assert!([NOBODY, owner(2)].contains(&owner_in(entry(&world, pfn))));
            }
            let (_, rest) = repair(&world);
            assert_eq!(u64::from(disowned + rest), nr_pages);
            assert_all_told(&world);
        });
    }
}

/// The same, and the page is freed in the end.
#[test]
fn added_and_freed_beside_doubt_and_disown() {
    explore(|| {
        let world = family(2);
        world.touch(1, 2, 0);
        beside(
            &world,
            |world| {
                doubt(&world.cpu(0), window(2, 0..1)).expect("a cgroup and a page");
                disown(&world.cpu(0), window(2, 0..1)).expect("a cgroup and a page")
            },
            |world| {
                world.cache(1, 0, 1);
                world.free(1, 0, 0);
            },
        );
        assert_eq!(entry(&world, 0), NOBODY);
        assert_all_told(&world);
    });
}

/// A doubt alone never removes a page's mark or owner.
#[test]
fn added_beside_doubt() {
    explore(|| {
        let world = family(2);
        world.touch(1, 2, 0);
        let (doubted, ()) = beside(
            &world,
            |world| doubt(&world.cpu(0), window(2, 0..1)),
            |world| world.cache(1, 0, 1),
        );
        assert!(doubted.is_ok());
        assert_eq!(entry(&world, 0) & !UNCONFIRMED, owner(2) | FILE);
        world.assert_file_pages(&[0, 0, 1]);
    });
}

/// Existing pages are adopted, as page cache or not, while they are added to the page cache, and one is freed.
#[test]
fn added_beside_adoption() {
    for (is_file, is_freed) in [(0, false), (1, false), (1, true)] {
        explore(move || {
            let world = family(2);
            let (adopted, ()) = beside(
                &world,
                move |world| adopt(&world.cpu(0), Window { is_file, ..window(2, 0..2) }),
                move |world| {
                    world.cache(1, 0, 2);
                    if is_freed {
                        world.free(1, 0, 0);
                    }
                },
            );
            assert_eq!(adopted, Ok(2));
            world.assert_conserved();
            let is_marked = [0, 1].map(|pfn| entry(&world, pfn) & FILE != 0);
            assert!(is_file == 0 || is_marked[1], "adopted as such");
            world.free(1, 0, 1);
            assert_all_told(&world);
        });
    }
}

/// A CPU's unreported change is drained while the CPU adds to it.
#[test]
fn drain_beside_changes() {
    for (batch, first, then) in [(2, 1, 1), (3, 1, 1), (3, 2, -2), (3, -1, 2), (3, 2, 1)] {
        explore(move || {
            let world = family(batch);
            file_changed(&world.cpu(1), owner(2), first);
            beside(
                &world,
                |world| world.drain(1, 0),
                move |world| file_changed(&world.cpu(1), owner(2), then),
            );
            let sum = |index| world.file(index) + world.untold(2);
            assert_eq!([0, 2].map(sum), [i64::from(first + then); 2]);
            world.drain(1, 0);
            assert_eq!(
                [0, 1, 2].map(|index| world.file(index)),
                [(first + then).into(), 0, (first + then).into()]
            );
        });
    }
}

/// The same when another cgroup's turn comes: each gets its own change.
#[test]
fn drain_and_flush_beside_another_cgroups_change() {
    explore_bounded(|| {
        let world = family(3);
        world.touch(1, 2, 0);
        world.cache(1, 0, 1);
        world.touch(1, 1, 1);
        world.close(2).expect("a tracked cgroup");
        let (evicter, drainer) = (Arc::clone(&world), Arc::clone(&world));
        let flushed = thread::spawn(move || evicter.flush(2, 1));
        let drained = thread::spawn(move || drainer.drain(1, 2));
        world.cache(1, 1, 1);
        flushed.join().expect("a checked thread does not panic");
        drained.join().expect("a checked thread does not panic");
        world.assert_file_pages(&[0, 1, 1]);
        world.free(0, 1, 0);
        world.free(0, 0, 0);
        assert_all_told(&world);
    });
}

/// A lost free is repaired on one CPU while the other marks the adjacent page.
#[test]
fn healing_beside_added() {
    explore(|| {
        let world = family(2);
        world.touch(0, 2, 0);
        world.cache(0, 0, 1);
        world.touch(1, 2, 1);
        beside(&world, |world| world.touch(0, 1, 0), |world| world.cache(1, 1, 1));
        assert_eq!([0, 1].map(|pfn| owner_in(entry(&world, pfn))), [owner(1), owner(2)]);
        world.assert_file_pages(&[0, 0, 1]);
        world.free(0, 0, 1);
        assert_all_told(&world);
    });
}

/// A concurrent charge does not count adopted page cache as needed. A weakly ordered machine may do so occasionally,
/// because usage and page cache are read one after the other.
#[test]
fn adoption_of_page_cache_beside_charge() {
    explore_steps(|| {
        let world = family(1);
        let (adopted, _) = beside(
            &world,
            |world| adopt(&world.cpu(0), Window { is_file: 1, ..window(2, 0..3) }),
            |world| world.touch(1, 2, 3),
        );
        assert_eq!(adopted, Ok(3));
        assert_eq!([0, 2].map(|index| world.needed_peak(index)), [1, 1]);
        world.assert_owned(&[0, 0, 4]);
    });
}
