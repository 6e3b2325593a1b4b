//! Charge, refill, consume, drain and uncharge under every interleaving that matters.
//!
//! `support/checked.rs` describes how they are explored, and on which memory model.

use crate::support::checked::{Model, beside, explore, explore_bounded, is_charged, shape};
use crate::support::{Shape, limited, owner};
use loom::sync::Arc;
use loom::thread;
use memstock_common::charge::{self, try_charge};
use memstock_common::stock::Pending;
use memstock_common::uncharge::uncharge_pages;
use memstock_common::{NO_INDEX, NO_LIMIT, Over, Resource, control, drain, index_of};

#[test]
fn two_drains_give_a_stock_back_once() {
    explore(|| {
        let world = Arc::new(Model::chain(shape(1, 3)));
        world.touch(0, 0, 0);
        let drained = |world: &Model| world.drain(0, 0);
        let (one, other) = beside(&world, drained, drained);
        assert_eq!(one + other, 2);
        world.assert_owned(&[1]);
    });
}

#[test]
fn consume_and_commit_beside_drain() {
    explore(|| {
        let world = Arc::new(Model::chain(shape(1, 3)));
        world.touch(0, 0, 0);
        let (drained, (is_hit, missing)) = beside(
            &world,
            |world| world.drain(0, NO_INDEX),
            |world| {
                let slot = world.slot(0, 0);
                (slot.consume(owner(0)), 2 - slot.commit(owner(0), 2).nr_pages)
            },
        );
        // A consumed page is drained as long as it is pending; a committed one is not.
        assert!(is_hit || missing == 2);
        assert!(missing == 0 || missing == 2);
        assert_eq!(drained, missing);
        world.assert_conserved_with(&[u64::from(2 - missing)]);
    });
}

/// A fault displaces another cgroup's stock while that stock, or its replacement, is drained.
#[test]
fn charge_beside_drain() {
    for subtree in [0, 1, NO_INDEX] {
        explore(move || {
            let world = Arc::new(Model::new(shape(2, 3)));
            world.add(0, NO_INDEX);
            world.add(1, NO_INDEX);
            world.touch(0, 0, 0);
            beside(&world, move |world| world.drain(0, subtree), |world| world.touch(0, 1, 1));
            world.assert_owned(&[1, 1]);
        });
    }
}

/// The first to add its pages sees only those, so one of two charges that each fit is granted.
#[test]
fn charge_beside_charge_on_a_limit() {
    for (nr_pages, limit) in [((1, 1), 1), ((2, 3), 4), ((2, 3), 3), ((2, 2), 4)] {
        explore(move || {
            let world = Arc::new(Model::new(shape(3, 3)));
            world.register(limited(0, NO_INDEX, limit)).expect("a free counter");
            world.add(1, 0);
            world.add(2, 0);
            let (one, other) = beside(
                &world,
                move |world| is_charged(try_charge(&world.cpu(1), 1, nr_pages.0)),
                move |world| is_charged(try_charge(&world.cpu(0), 2, nr_pages.1)),
            );
            assert!(one + other >= 1, "one of two charges that fit alone is granted");
            if nr_pages.0 + nr_pages.1 <= limit {
                assert_eq!(one + other, 2, "what fits together is granted");
            }
            assert!(world.usage(0) <= limit);
            assert!(world.watermark(0) <= limit);
            world.assert_conserved_with(&[0, one * nr_pages.0, other * nr_pages.1]);
        });
    }
}

/// The tolerated inaccuracy: a charge that fits is refused while one that does not is in flight.
#[test]
fn a_failing_charge_may_push_out_one_that_fits() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    static PUSHED_OUT: AtomicBool = AtomicBool::new(false);
    explore(|| {
        let world = Arc::new(Model::new(shape(1, 3)));
        world.register(limited(0, NO_INDEX, 2)).expect("a free counter");
        let (large, small) = beside(
            &world,
            |world| is_charged(try_charge(&world.cpu(1), 0, 3)),
            |world| is_charged(try_charge(&world.cpu(0), 0, 1)),
        );
        assert_eq!(large, 0);
        if small == 0 {
            PUSHED_OUT.store(true, SeqCst);
        }
        assert!(world.watermark(0) <= 2);
        world.assert_conserved_with(&[small]);
    });
    assert!(PUSHED_OUT.load(SeqCst), "the bound that `try_charge` declares is met");
}

/// Whole faults of two CPUs under one limit.
#[test]
fn fault_beside_fault_on_a_limit() {
    explore(|| {
        let world = Arc::new(Model::new(Shape { cpus: 2, ..shape(1, 2) }));
        world.register(limited(0, NO_INDEX, 3)).expect("a free counter");
        beside(&world, |world| world.touch(1, 0, 1), |world| world.touch(0, 0, 0));
        // Two pages fit under a limit of three, but a failing batch may push a single page out.
        let forced = world.sum(0, |share| &share.forced);
        assert!(world.usage(0) <= 3 + forced);
        assert!(forced <= 1, "the first to charge a batch gets it");
        world.assert_owned(&[2]);
    });
}

/// Memory+swap refuses a charge while another one has charged memory but not yet memory+swap.
#[test]
fn memsw_charges_beside_each_other() {
    explore(|| {
        let world = Arc::new(Model::new(Shape { memsw: true, ..shape(1, 1) }));
        let register = control::Register { memsw_limit: 1, ..limited(0, NO_INDEX, NO_LIMIT) };
        world.register(register).expect("a free counter");
        let (one, other) = beside(
            &world,
            |world| try_charge(&world.cpu(1), 0, 1),
            |world| try_charge(&world.cpu(0), 0, 1),
        );
        let refused = Err(Over { ancestor: 0, resource: Resource::Memsw });
        assert!(one == Ok(()) && other == refused || one == refused && other == Ok(()));
        world.assert_conserved_with(&[1]);
    });
}

/// Refill, drain and uncharge of one cgroup, on three threads.
#[test]
fn refill_beside_drain_beside_uncharge() {
    explore_bounded(|| {
        let world = Arc::new(Model::chain(shape(2, 3)));
        world.touch(0, 0, 0);
        charge::charge_forced(&world.cpu(0), 1, 2);
        let (drainer, freer) = (Arc::clone(&world), Arc::clone(&world));
        let drained = thread::spawn(move || drainer.drain(0, 0));
        let freed = thread::spawn(move || freer.uncharge(1, 1));
        let refill = world.slot(0, 0).refill(owner(1), Pending::default(), 1, 3);
        let displaced = refill.displaced;
        world.uncharge(index_of(displaced.owner()), displaced.charged().into());
        drained.join().expect("a checked thread does not panic");
        freed.join().expect("a checked thread does not panic");
        assert_eq!(refill.excess, 0);
        world.assert_owned(&[1, 0]);
    });
}

/// A refill for the cgroup that is already cached, while its stock is drained.
#[test]
fn refill_of_a_stock_being_drained() {
    explore(|| {
        let world = Arc::new(Model::chain(shape(1, 3)));
        world.touch(0, 0, 0);
        charge::charge_forced(&world.cpu(0), 0, 2);
        let (_, refill) = beside(
            &world,
            |world| drain::drain_stock(&world.cpu(1), world.slot(0, 0), 0),
            |world| {
                let pending = Pending { nr_pages: 1, missed: true };
                world.slot(0, 0).refill(owner(0), pending, 2, 3)
            },
        );
        assert_eq!(refill.displaced.charged(), 0);
        assert!(refill.excess == 0 || refill.excess == 1);
        world.uncharge(0, refill.excess.into());
        world.assert_owned(&[1]);
    });
}

/// Freed pages go to a stock, or to an uncharge batch, while that is drained.
#[test]
fn uncharge_beside_drain() {
    for (stocked, uncharging) in [(2, 0), (3, 0), (3, 2), (0, 1), (0, 2)] {
        explore(move || {
            let world = Arc::new(Model::chain(shape(1, 3)));
            charge::charge_forced(&world.cpu(0), 0, 7);
            let slot = world.slot(0, 0);
            let cached = if stocked > 0 { owner(0) } else { 0 };
            slot.refill(cached, Pending::default(), stocked, 3);
            slot.batch_up(owner(0), uncharging, 3);
            let left = u64::from(7 - stocked - uncharging);
            world.assert_conserved_with(&[left]);
            beside(
                &world,
                |world| world.drain(0, 0),
                |world| uncharge_pages(&world.cpu(0), owner(0), 1),
            );
            world.assert_conserved_with(&[left - 1]);
        });
    }
}
