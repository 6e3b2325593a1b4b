//! Charging a huge page to the cgroup whose memory it is, concurrent with its free, and with another task's collapse,
//! under every interleaving that matters.
//!
//! `support/checked.rs` describes how they are explored, and on which memory model.

use crate::support::Shape;
use crate::support::checked::{Model, beside, explore, explore_bounded, shape};
use loom::sync::Arc;
use memstock_common::collapse::{COLLAPSE_ORDER, COLLAPSES};
use memstock_common::{Entry, NO_INDEX, NOBODY};

const HUGE: u64 = 1 << COLLAPSE_ORDER;
/// An index without a counter: a cgroup that is never tracked.
const UNTRACKED: u32 = 1;

/// One cgroup, and two CPUs, whose tasks share one entry of the map of collapses.
fn alone() -> Arc<Model> {
    let shape = Shape { cpus: 2, tracks_collapses: true, tasks_apart: COLLAPSES, ..shape(1, 2) };
    let world = Model::new(shape);
    world.add(0, NO_INDEX);
    Arc::new(world)
}

/// If the page is freed first, it stays without an owner. If it is freed while it is charged, some of it may stay
/// charged until the next allocation.
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

/// khugepaged fails and frees the page, which is allocated to another task at once. Without a bound, the exploration
/// takes 40 s and finds nothing more.
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

/// Two tasks share an entry. The huge page of the one that loses it is charged to nobody, and neither task is charged
/// for the other's.
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
