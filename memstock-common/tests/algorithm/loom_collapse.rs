//! A huge page that is charged to whom the memory belongs, beside its free, and beside another task that puts one
//! together, under every interleaving that matters.
//!
//! How they are explored, and on which memory model, is said in `support/checked.rs`.

use crate::support::Shape;
use crate::support::checked::{Model, beside, explore, explore_bounded, shape};
use loom::sync::Arc;
use memstock_common::collapse::{COLLAPSE_ORDER, COLLAPSES};
use memstock_common::{Entry, NO_INDEX, NOBODY};

const HUGE: u64 = 1 << COLLAPSE_ORDER;
/// Beyond the counters: a cgroup that is never tracked.
const UNTRACKED: u32 = 1;

/// One cgroup, and two CPUs, whose tasks have one place.
fn alone() -> Arc<Model> {
    let shape = Shape { cpus: 2, tells_collapses: true, tasks_apart: COLLAPSES, ..shape(1, 2) };
    let world = Model::new(shape);
    world.add(0, NO_INDEX);
    Arc::new(world)
}

/// Freed first, it stays nobody's; freed while it is charged, pages of it may be charged in vain, until they are
/// allocated.
#[test]
fn collapse_beside_free() {
    explore(|| {
        let world = alone();
        world.alloc(1, Some(UNTRACKED), 0, COLLAPSE_ORDER);
        beside(
            &world,
            |world| world.free(0, 0, COLLAPSE_ORDER),
            |world| {
                world.collapsed(1, 0);
            },
        );
        world.assert_conserved();
        world.alloc(0, None, 0, COLLAPSE_ORDER);
        world.assert_owned(&[0]);
    });
}

/// As khugepaged fails and frees what it had, the page is another's at once. Without a bound, which found nothing
/// else, it takes 40 s.
#[test]
fn collapse_beside_a_new_allocation() {
    explore_bounded(|| {
        let world = alone();
        world.alloc(1, Some(UNTRACKED), 0, COLLAPSE_ORDER);
        beside(
            &world,
            |world| {
                world.free(0, 0, COLLAPSE_ORDER);
                world.alloc(0, Some(0), 0, COLLAPSE_ORDER);
            },
            |world| {
                world.collapsed(1, 0);
            },
        );
        world.assert_owned(&[HUGE]);
    });
}

/// Two tasks with one place: the one that loses it is charged to nobody, and neither is charged for the other's.
#[test]
fn two_collapses_in_one_place() {
    explore(|| {
        let world = alone();
        world.alloc(1, Some(UNTRACKED), 0, COLLAPSE_ORDER);
        beside(
            &world,
            |world| {
                world.alloc(0, Some(UNTRACKED), HUGE, COLLAPSE_ORDER);
                world.collapsed(0, 0);
            },
            |world| {
                world.collapsed(1, 0);
            },
        );
        let owned = [0, HUGE].map(|pfn| world.entry(pfn).load() & 1 != NOBODY);
        assert!(owned[1], "the later one is charged");
        world.assert_owned(&[HUGE + if owned[0] { HUGE } else { 0 }]);
    });
}
