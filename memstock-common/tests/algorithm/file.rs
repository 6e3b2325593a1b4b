//! Page cache: which pages are marked, and when they lose the mark.

use crate::support::folio::Added;
use crate::support::plain::{Plain, entry, family_on_two_cpus, files, read_file, untold};
use crate::support::{Shape, owner, window};
use memstock_common::adopt::{disown, doubt};
use memstock_common::collapse::COLLAPSE_ORDER;
use memstock_common::file::{FILE, FileWord};
use memstock_common::migrate::migrated;
use memstock_common::page::{CHUNK_PAGES, UNCONFIRMED, drained, owner_in};
use memstock_common::{Loss, NO_INDEX};

/// Counter 0 is the parent of counters 1 and 2; two CPUs, two chunks.
fn family(batch: u32) -> Plain {
    family_on_two_cpus(Shape { batch, ..Shape::default() })
}

#[test]
fn what_is_added_to_the_page_cache_is_marked_once_and_told_in_batches() {
    let world = family(8);
    for n in 1..=20_u64 {
        world.touch(0, 1, n);
        world.assert_file_pages(&[0, n - 1, 0]);
        world.cache(0, n, 1);
        assert_eq!(entry(&world, n), owner(1) | FILE);
        world.assert_file_pages(&[0, n, 0]);
        world.cache(1, n, 1);
        assert_eq!(untold(&world, 1), FileWord::EMPTY, "it is already");
        let told = (n / 8 * 8) as i64;
        assert_eq!(files(&world), [told, told, 0], "all levels alike");
    }
    world.assert_owned(&[0, 20, 0]);
}

#[test]
fn what_nobody_is_charged_for_is_not_marked() {
    let world = family(8);
    world.cache(0, 5, 1);
    world.alloc(0, None, 8, 3);
    world.cache(0, 8, 8);
    world.cache(0, 2048, 1);
    assert_eq!([5, 8].map(|pfn| entry(&world, pfn)), [0, 0]);
    world.assert_file_pages(&[0; 3]);
    assert_eq!(world.loss(Loss::PagesOutside), 0, "its allocation was counted");
}

#[test]
fn what_cannot_be_taken_back_is_not_marked() {
    let world = family(8);
    world.touch(0, 1, 0);
    world.alloc(0, Some(1), 8, 3);
    let locked = Added { is_evictable: false, nr_pages: 8, ..Added::default() };
    world.cache_folio(0, 0, &Added { nr_pages: 1, ..locked });
    world.cache_folio(0, 8, &locked);
    world.assert_file_pages(&[0; 3]);
    world.assert_owned(&[0, 9, 0]);
}

/// Pages that did not look like user memory when they were allocated, and pages that already have an owner.
#[test]
fn what_nobody_is_charged_for_is_charged_to_who_adds_it() {
    let world = family(8);
    world.alloc(0, None, 8, 3);
    world.touch(0, 2, 10);
    let folio = Added { nr_pages: 8, owner: owner(1), ..Added::default() };
    world.cache_folio(0, 8, &Added { is_charged: false, ..folio });
    world.assert_owned(&[0, 0, 1]);
    world.cache_folio(0, 8, &folio);
    world.assert_owned(&[0, 7, 1]);
    world.assert_file_pages(&[0, 7, 0]);
    assert_eq!(world.charged(1), [0, 7]);
    world.cache_folio(0, 8, &Added { owner: owner(2), ..folio });
    world.alloc(0, None, 16, 0);
    world.cache_folio(0, 16, &Added { is_evictable: false, owner: owner(1), ..Added::default() });
    world.assert_owned(&[0, 8, 1]);
    world.assert_file_pages(&[0, 7, 0]);
    assert_eq!(world.charged(1), [1, 7], "one was stocked");
    world.free(0, 8, 3);
    world.free(0, 16, 0);
    world.assert_owned(&[0, 0, 0]);
}

#[test]
fn a_large_folio_is_told_at_once() {
    let world = family(8);
    for (order, batch_left) in [(1, 2), (2, 4), (9, 0)] {
        let world = family(8);
        let nr_pages = 1 << order;
        world.alloc(0, Some(2), 1024, order);
        world.cache(0, 1024, nr_pages);
        assert_eq!(untold(&world, 0).change(), batch_left);
        world.assert_file_pages(&[0, 0, nr_pages.into()]);
        world.free(1, 1024, order);
        assert_eq!(untold(&world, 1).change(), -batch_left);
        world.assert_file_pages(&[0; 3]);
    }
    // A whole chunk; and of a folio, nothing beside it.
    world.alloc(0, Some(1), 0, 10);
    world.cache(0, 4, 4);
    world.assert_file_pages(&[0, 4, 0]);
    assert_eq!([3, 4, 7, 8].map(|pfn| entry(&world, pfn) & FILE), [0, FILE, FILE, 0]);
    world.cache(0, 0, CHUNK_PAGES);
    world.assert_file_pages(&[0, 1024, 0]);
}

/// A repair, or a lost owner, may leave pages of other owners in a folio: they are not marked.
#[test]
fn of_a_folio_the_pages_of_its_first_ones_owner_are_marked() {
    let world = family(8);
    for (pfn, index) in [(0, 1), (1, 2), (3, 1), (5, 2), (6, 1)] {
        world.touch(0, index, pfn);
    }
    world.cache(0, 0, 8);
    world.assert_file_pages(&[0, 3, 0]);
    let marked = [0, 1, 2, 3, 4, 5, 6, 7].map(|pfn| entry(&world, pfn) & FILE != 0);
    assert_eq!(marked, [true, false, false, true, false, false, true, false]);
    // A folio whose first page has no owner is left alone.
    world.cache(0, 4, 4);
    world.assert_file_pages(&[0, 3, 0]);
    // Freed as a block: three runs are uncharged, with their page cache.
    world.free(1, 0, 3);
    world.assert_file_pages(&[0, 1, 0]);
    world.assert_owned(&[0, 1, 0]);
    assert_eq!(world.loss(Loss::BlocksMixed), 2, "after one page of a fourth run");
    world.free(1, 0, 3);
    world.assert_file_pages(&[0; 3]);
    world.drain(0, NO_INDEX);
    world.drain(1, NO_INDEX);
    assert_eq!((files(&world), world.usage(0)), ([0; 3], 0));
}

/// Every mix of owners in a block, freed, allocated again, or taken off the free list.
#[test]
fn blocks_of_several_owners_and_kinds_lose_each_mark_once() {
    for code in 0..6_u32.pow(5) {
        let world = family_on_two_cpus(Shape { batch: 4, ..Shape::default() });
        let mut pages = 0;
        for pfn in 0..5 {
            let kind = code / 6_u32.pow(pfn) % 6;
            // Two sibling cgroups, with and without page cache; or no owner.
            if kind < 4 {
                world.touch(0, 1 + kind % 2, pfn.into());
                if kind < 2 {
                    world.cache(0, pfn.into(), 1);
                    pages += 1;
                }
            }
        }
        assert_eq!(world.file_pages().iter().sum::<u64>(), pages);
        match code % 3 {
            0 => world.free(1, 0, 3),
            1 => world.alloc(1, Some(2), 0, 3),
            _ => {
                drained(&world.cpu(1), 0, 3);
            }
        }
        world.assert_conserved();
        world.free_each(0, 0..8);
        world.assert_file_pages(&[0; 3]);
        world.drain(0, NO_INDEX);
        world.drain(1, NO_INDEX);
        assert_eq!((files(&world), world.usage(0)), ([0; 3], 0), "{code}");
    }
}

#[test]
fn a_page_loses_the_mark_with_its_owner() {
    let world = family(8);
    read_file(&world, 1, 0..4);
    world.free(1, 0, 0);
    assert_eq!((entry(&world, 0), untold(&world, 1)), (0, FileWord::new(owner(1), -1)));
    world.assert_file_pages(&[0, 3, 0]);
    // Its free was lost: its next owner has no page cache.
    world.touch(0, 2, 1);
    assert_eq!(entry(&world, 1), owner(2));
    world.assert_file_pages(&[0, 2, 0]);
    world.touch(0, 1, 2);
    assert_eq!(entry(&world, 2), owner(1));
    world.assert_file_pages(&[0, 1, 0]);
    drained(&world.cpu(0), 3, 0);
    world.assert_file_pages(&[0; 3]);
    assert_eq!(world.loss(Loss::Healed), 3);
    world.assert_owned(&[0, 1, 1]);
}

#[test]
fn doubts_leave_the_mark_and_a_disowned_page_loses_it() {
    let world = family(8);
    read_file(&world, 1, 0..4);
    world.touch(0, 1, 4);
    let all = window(1, 0..8);
    assert_eq!(doubt(&world.cpu(1), all), Ok(5));
    assert_eq!(entry(&world, 0), owner(1) | FILE | UNCONFIRMED);
    assert_eq!(owner_in(entry(&world, 0)), owner(1));
    world.assert_file_pages(&[0, 4, 0]);
    // A doubted page can be added to the page cache, and page cache can be doubted.
    world.cache(0, 4, 1);
    assert_eq!(entry(&world, 4), owner(1) | FILE | UNCONFIRMED);
    world.assert_file_pages(&[0, 5, 0]);
    world.free(0, 0, 0);
    assert_eq!(disown(&world.cpu(1), all), Ok(4));
    world.assert_file_pages(&[0; 3]);
    world.assert_owned(&[0; 3]);
    world.drain(0, NO_INDEX);
    assert_eq!(files(&world), [0; 3]);
}

#[test]
fn the_mark_moves_with_the_page() {
    let world = family(8);
    read_file(&world, 1, 0..3);
    doubt(&world.cpu(0), window(1, 1..2)).unwrap();
    // The new frame is charged to the task that migrates, and may be marked.
    read_file(&world, 2, 9..10);
    world.touch(0, 2, 8);
    for (from, to) in [(0, 8), (1, 9), (2, 1030)] {
        migrated(&world.cpu(1), from, to, 1);
        assert_eq!([from, to].map(|pfn| entry(&world, pfn)), [0, owner(1) | FILE]);
    }
    world.assert_file_pages(&[0, 3, 0]);
    world.assert_owned(&[0, 3, 0]);
    // As a block, with and without the mark.
    world.cache(0, 11, 1);
    world.alloc(0, Some(1), 512, 2);
    world.cache(0, 514, 1);
    migrated(&world.cpu(1), 512, 1024, 4);
    let moved = [1024, 1025, 1026, 1027].map(|pfn| entry(&world, pfn) & FILE != 0);
    assert_eq!(moved, [false, false, true, false]);
    world.assert_file_pages(&[0, 4, 0]);
    world.free(0, 1024, 2);
    world.assert_file_pages(&[0, 3, 0]);
}

#[test]
fn a_huge_page_that_was_put_together_may_be_page_cache() {
    const HUGE: u64 = 1 << COLLAPSE_ORDER;
    /// An index without a counter: a cgroup that is never tracked.
    const UNTRACKED: u32 = 3;
    for (is_file, taken) in [(false, 0), (true, 0), (false, 3), (true, 3)] {
        let world =
            family_on_two_cpus(Shape { batch: 8, tracks_collapses: true, ..Shape::default() });
        world.alloc(1, Some(UNTRACKED), 0, COLLAPSE_ORDER);
        for pfn in 0..taken {
            world.touch(0, 2, HUGE - 1 - pfn);
        }
        world.collapsed_into(1, 1, is_file);
        world.assert_owned(&[0, HUGE - taken, taken]);
        world.assert_file_pages(&[0, if is_file { HUGE - taken } else { 0 }, 0]);
        world.free(1, 0, COLLAPSE_ORDER);
        world.assert_file_pages(&[0; 3]);
        // Freed before it could be charged: nothing is reported.
        world.alloc(1, Some(UNTRACKED), 0, COLLAPSE_ORDER);
        world.free(1, 0, COLLAPSE_ORDER);
        world.collapsed_into(1, 1, is_file);
        world.assert_file_pages(&[0; 3]);
        world.assert_owned(&[0; 3]);
    }
}
