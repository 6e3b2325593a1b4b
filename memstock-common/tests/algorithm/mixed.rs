//! Blocks whose pages have several owners: runs of one owner are uncharged, up to a maximum number.

use crate::support::plain::Plain;
use crate::support::{Shape, owner};
use memstock_common::page::owner_in;
use memstock_common::{Entry, Loss, NO_INDEX};

/// Runs that are uncharged, and one page of one more.
const RUNS: usize = 3;

/// A block of pages with these owners, by counter.
fn block(order: u32, pages: &[(u64, u32)]) -> Plain {
    let world = Plain::new(Shape { batch: 4, cgroups: 3, ..Shape::default() });
    for index in 0..3 {
        world.add(index, NO_INDEX);
    }
    for &(pfn, index) in pages {
        assert!(pfn < 1 << order);
        world.touch(0, index, pfn);
    }
    world
}

fn owned_by(pages: &[(u64, u32)]) -> [u64; 3] {
    [0, 1, 2].map(|index| pages.iter().filter(|page| page.1 == index).count() as u64)
}

#[test]
fn pages_of_nobody_do_not_part_a_run() {
    for order in [1, 3, 6, 10] {
        let last = (1 << order) - 1;
        for pages in [vec![], vec![(0, 0)], vec![(last, 0)], vec![(0, 0), (last, 0)]] {
            let world = block(order, &pages);
            world.assert_owned(&owned_by(&pages));
            world.free(0, 0, order);
            world.assert_owned(&[0; 3]);
            let world = block(order, &pages);
            world.alloc(0, Some(1), 0, order);
            world.assert_owned(&[0, 1 << order, 0]);
            assert_eq!(world.loss(Loss::Healed), pages.len() as u64);
        }
    }
}

/// Every assignment of three owners, or none, to six pages in the middle of a block.
#[test]
fn the_pages_of_a_block_may_belong_to_anybody() {
    for code in 0..4_u32.pow(6) {
        let digit = |pfn: u64| code >> (2 * (pfn - 1)) & 3;
        let pages: Vec<_> = (1..7).map(|pfn| (pfn, digit(pfn))).filter(|page| page.1 < 3).collect();
        let (due, left) = due(&pages, 8);
        let world = block(3, &pages);
        world.free(0, 0, 3);
        world.assert_owned(&due);
        assert_eq!(world.loss(Loss::BlocksMixed), left);

        let world = block(3, &pages);
        world.alloc(0, Some(2), 0, 3);
        let [first, second, third] = due;
        world.assert_owned(&[first, second, third + 8 - left]);
        let kept: u64 = due.iter().sum();
        assert_eq!(world.loss(Loss::BlocksMixed), left);
        assert_eq!(world.loss(Loss::Healed), pages.len() as u64 - kept);
    }
}

/// How many pages of a block of `end` pages each owner keeps, and how many are left with those of nobody.
fn due(pages: &[(u64, u32)], end: u64) -> ([u64; 3], u64) {
    let mut runs = pages.chunk_by(|a, b| a.1 == b.1).skip(RUNS);
    let Some(&(first, _)) = runs.next().and_then(<[_]>::first) else { return ([0; 3], 0) };
    let kept: Vec<_> = pages.iter().copied().filter(|page| page.0 > first).collect();
    (owned_by(&kept), end - first - 1)
}

#[test]
fn the_rest_of_a_block_with_too_many_runs_keeps_its_owners() {
    const TAKEN: u64 = RUNS as u64 + 1;
    let turns: Vec<_> = (0..1024).map(|pfn| (pfn, (pfn % 2) as u32)).collect();
    let world = block(10, &turns);
    world.free(0, 0, 10);
    world.assert_owned(&owned_by(&turns[TAKEN as usize..]));
    assert_eq!(world.loss(Loss::BlocksMixed), 1024 - TAKEN);
    // The next allocation of the block uncharges as many again.
    world.alloc(0, Some(2), 0, 10);
    let [first, second, _] = owned_by(&turns[2 * TAKEN as usize..]);
    world.assert_owned(&[first, second, 2 * TAKEN]);
    assert_eq!(world.loss(Loss::BlocksMixed), 1024 - TAKEN + 1024 - 2 * TAKEN);
    assert_eq!(world.loss(Loss::Healed), TAKEN);
    for (pfn, index) in turns {
        let due = if pfn < 2 * TAKEN { 2 } else { index };
        assert_eq!(owner_in(Entry::load(world.entry(pfn))), owner(due));
    }
    // Freed page by page, nothing is left behind.
    world.free_each(0, 0..1024);
    world.assert_owned(&[0; 3]);
}
