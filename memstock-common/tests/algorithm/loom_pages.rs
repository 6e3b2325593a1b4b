//! Allocation and free of pages, concurrent with drains, and with each other on two CPUs, under every interleaving that
//! matters.
//!
//! `support/checked.rs` describes how they are explored, and on which memory model.

use crate::support::checked::{Model, beside, explore, explore_bounded, shape};
use crate::support::{Shape, limited};
use loom::sync::Arc;
use loom::thread;
use memstock_common::{Loss, NO_INDEX, Word};

/// Two sibling cgroups, on two CPUs.
fn row(batch: u32) -> Arc<Model> {
    let world = Model::new(Shape { cpus: 2, ..shape(2, batch) });
    world.add(0, NO_INDEX);
    world.add(1, NO_INDEX);
    Arc::new(world)
}

/// The pending page may be drained between fault and allocation. For a block, the missing pages are charged, and the
/// rest of the batch is stocked.
#[test]
fn fault_and_allocation_beside_drain() {
    for (order, subtree) in [(0, 0), (0, NO_INDEX), (1, NO_INDEX)] {
        explore(move || {
            let world = row(3);
            world.fault(0, 0);
            beside(
                &world,
                move |world| world.drain(0, subtree),
                move |world| {
                    world.fault(0, 0);
                    world.alloc(0, Some(0), 0, order);
                },
            );
            world.assert_owned(&[1 << order, 0]);
        });
    }
}

/// The freed page goes to the stock if that is cached for its owner, else to the uncharge batch, which holds a page of
/// the same or of another cgroup. Meanwhile both are drained.
#[test]
fn free_beside_drain() {
    const STOCK_OF: [Option<u32>; 3] = [None, Some(0), Some(1)];
    for (stock_of, batch_of) in STOCK_OF.into_iter().flat_map(|s| [(s, 0), (s, 1)]) {
        for batch in [2, 3] {
            explore(move || {
                let world = row(batch);
                // Owned by cgroup 0: pages 0 and 1; by cgroup 1: page 2. Pages 1 or 2 are in the
                // uncharge batch of CPU 0.
                world.touch_each(1, 0, 0..2);
                world.touch(1, 1, 2);
                world.drain(0, NO_INDEX);
                world.free(0, if batch_of == 0 { 1 } else { 2 }, 0);
                if let Some(index) = stock_of {
                    world.fault(0, index);
                }
                beside(&world, |world| world.drain(0, NO_INDEX), |world| world.free(0, 0, 0));
                let owned = if batch_of == 0 { [0, 1] } else { [1, 0] };
                world.assert_owned(&owned);
                world.drain(0, NO_INDEX);
                world.drain(1, NO_INDEX);
                assert_eq!([world.usage(0), world.usage(1)], owned);
            });
        }
    }
}

/// A block of two pages goes partly to the stock and partly to the uncharge batch, which it may fill.
#[test]
fn free_of_a_block_beside_drain() {
    for batch in [1, 2, 3] {
        explore(move || {
            let world = row(batch);
            world.alloc(0, Some(0), 0, 1);
            world.touch(0, 0, 2);
            beside(&world, |world| world.drain(0, 0), |world| world.free(0, 0, 1));
            world.assert_owned(&[1, 0]);
        });
    }
}

/// A miss reuses the pages in the uncharge batch while that is drained.
#[test]
fn reuse_of_the_uncharge_batch_beside_drain() {
    for order in [0, 1] {
        explore(move || {
            let world = row(3);
            world.touch(1, 0, 0);
            world.free(0, 0, 0);
            assert_eq!(world.uncharging(0), 1);
            beside(
                &world,
                |world| world.drain(0, NO_INDEX),
                move |world| world.alloc(0, Some(0), 2, order),
            );
            world.assert_owned(&[1 << order, 0]);
        });
    }
}

/// Pages of one cgroup freed on one CPU and allocated on another, under a limit that has room for all.
#[test]
fn free_beside_allocation() {
    for batch in [1, 2] {
        explore(move || {
            let world = Arc::new(Model::new(Shape { cpus: 2, ..shape(1, batch) }));
            world.register(limited(0, NO_INDEX, 4)).expect("a free counter");
            world.touch(0, 0, 0);
            beside(&world, |world| world.free(1, 0, 0), |world| world.touch(0, 0, 1));
            world.assert_owned(&[1]);
            assert_eq!(world.failcnt(0), 0);
        });
    }
}

/// Both flush a full uncharge batch.
#[test]
fn free_beside_free() {
    explore(|| {
        let world = row(2);
        world.touch_each(0, 0, 0..2);
        world.touch_each(0, 1, 2..4);
        world.drain(0, NO_INDEX);
        let free = |cpu: u32, pages: [u64; 2]| {
            move |world: &Model| pages.into_iter().for_each(|pfn| world.free(cpu, pfn, 0))
        };
        beside(&world, free(1, [0, 2]), free(0, [3, 1]));
        world.assert_owned(&[0, 0]);
    });
}

/// A lost free is repaired while the stock that it goes back to is drained.
#[test]
fn repair_beside_drain() {
    for order in [0, 1] {
        explore(move || {
            let world = row(2);
            world.touch(1, 0, 0);
            world.touch(0, 1, 1);
            beside(
                &world,
                |world| world.drain(0, NO_INDEX),
                move |world| world.alloc(0, Some(1), 0, order),
            );
            world.assert_owned(&[0, 2]);
            assert_eq!(world.loss(Loss::Healed), [1, 2][order as usize]);
        });
    }
}

/// One CPU frees and one charges, while both are drained.
#[test]
fn free_beside_charge_beside_drain() {
    for batch in [1, 2] {
        explore_bounded(move || {
            let world = row(batch);
            world.touch_each(1, 0, 0..2);
            let (drainer, freer) = (Arc::clone(&world), Arc::clone(&world));
            let drained =
                thread::spawn(move || drainer.drain(0, NO_INDEX) + drainer.drain(1, NO_INDEX));
            let freed = thread::spawn(move || freer.free(1, 0, 0));
            world.touch(0, 0, 2);
            drained.join().expect("a checked thread does not panic");
            freed.join().expect("a checked thread does not panic");
            world.assert_owned(&[2, 0]);
        });
    }
}

/// An interrupt allocates during a fault of the same task, and both miss. However they interleave, faults are credited
/// once.
#[test]
fn allocation_beside_fault_on_one_cpu() {
    explore_bounded(|| {
        let world = row(3);
        world.touch_each(0, 0, 0..2);
        world.drain(0, NO_INDEX);
        assert_eq!((world.faults(0), world.share(0, 0).faults.load()), (2, 0), "none is credited");
        beside(
            &world,
            |world| world.alloc(0, Some(0), 2, 0),
            |world| {
                world.fault(0, 0);
            },
        );
        assert_eq!((world.faults(0), world.slot(0, 0).faults.load()), (3, 3));
        world.assert_owned(&[3, 0]);
    });
}
