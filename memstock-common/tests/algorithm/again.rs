//! Two programs see each allocation and each free. Whichever of them the kernel skips, a page is charged once, to the
//! right cgroup.

use crate::support::Shape;
use crate::support::plain::{Plain, entry, family_of};
use memstock_common::Loss;
use memstock_common::collapse::COLLAPSE_ORDER;
use memstock_common::page::{CHUNK_PAGES, UNCONFIRMED};

/// Which of the two programs the kernel skips.
const SKIPS: [[bool; 2]; 3] = [[false, false], [true, false], [false, true]];

/// The counter whose task allocates a block; `None` for a block that the kernel does not charge.
const TASKS: [Option<u32>; 3] = [Some(1), Some(2), None];

fn alloc(world: &Plain, [first, second]: [bool; 2], task: Option<u32>, order: u32) {
    if !first {
        world.alloc(0, task, 0, order);
    }
    if !second {
        world.alloc_again(0, task, 0, order);
    }
}

fn free(world: &Plain, [first, second]: [bool; 2], order: u32) {
    if !first {
        world.free(0, 0, order);
    }
    if !second {
        world.free_again(0, 0, order);
    }
}

/// A block is allocated and freed twice, with every way to skip one program each time.
#[test]
fn a_block_is_charged_once_whichever_look_is_skipped() {
    for order in [0, 3] {
        for code in 0..3_usize.pow(6) {
            let digit = |n: u32| code / 3_usize.pow(n) % 3;
            let world = family_of(Shape { cgroups: 3, batch: 4, ..Shape::default() });
            for round in 0..2 {
                let task = TASKS[digit(3 * round)];
                alloc(&world, SKIPS[digit(3 * round + 1)], task, order);
                let mut owned = [0; 3];
                if let Some(index) = task {
                    owned[index as usize] = 1 << order;
                }
                world.assert_owned(&owned);
                free(&world, SKIPS[digit(3 * round + 2)], order);
                world.assert_owned(&[0; 3]);
            }
            assert_eq!(world.loss(Loss::Healed), 0, "nothing was there to be found");
        }
    }
}

/// A free that both programs miss is found at the next allocation that the first one sees.
#[test]
fn what_both_have_missed_is_healed_as_before() {
    let world = family_of(Shape { cgroups: 3, ..Shape::default() });
    alloc(&world, SKIPS[0], Some(1), 0);
    alloc(&world, SKIPS[0], Some(2), 0);
    world.assert_owned(&[0, 0, 1]);
    assert_eq!(world.loss(Loss::Healed), 1);
}

/// A huge page that khugepaged allocated for another task keeps the mark of the first program.
#[test]
fn a_collapse_begins_once() {
    let world = family_of(Shape { cgroups: 3, tracks_collapses: true, ..Shape::default() });
    let untracked = Some(3);
    world.alloc(0, untracked, 0, COLLAPSE_ORDER);
    assert_eq!(entry(&world, 0), UNCONFIRMED);
    world.alloc_again(0, Some(1), 0, COLLAPSE_ORDER);
    assert_eq!(entry(&world, 0), UNCONFIRMED);
}

/// What is outside the owner map is counted by the first look alone.
#[test]
fn nothing_is_lost_twice() {
    let world = family_of(Shape { cgroups: 3, ..Shape::default() });
    let outside = u64::from(CHUNK_PAGES);
    world.alloc(0, Some(1), outside, 0);
    world.alloc_again(0, Some(1), outside, 0);
    world.free(0, outside, 0);
    world.free_again(0, outside, 0);
    assert_eq!(world.loss(Loss::PagesOutside), 2);
}
