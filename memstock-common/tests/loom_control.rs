//! The control programs beside the faults, charges and drains that they may meet, under every
//! interleaving that matters.
//!
//! How they are explored, and on which memory model, is said in `support/checked.rs`.

mod support;

#[path = "support/checked.rs"]
mod checked;

use checked::{Model, beside, explore_bounded, is_charged, shape};
use loom::sync::Arc;
use loom::thread;
use memstock_common::charge::{self, try_charge};
use memstock_common::control::{self, Refusal, Register};
use memstock_common::fault::Consumed;
use memstock_common::{Loss, Machine, NO_INDEX, NO_LIMIT, Resource, Word};
use support::{Shape, cgroup_id, limited, owner};

/// Once a limit is set, no charge that began earlier has slipped past it.
#[test]
fn set_limit_beside_charge() {
    for (nr_pages, asked) in [(1, 1), (2, 1), (1, 0)] {
        loom::model(move || {
            let world = Arc::new(Model::new(shape(1, 3)));
            world.register(limited(0, NO_INDEX, 8)).expect("a free counter");
            let (charged, set) = beside(
                &world,
                move |world| is_charged(try_charge(&world.cpu(1), 0, nr_pages)),
                move |world| control::set_limit(&world.cpu(0), 0, Resource::Memory, asked),
            );
            let limit = Word::load(&world.counter(0).memory_limit);
            match set {
                Ok(_) => assert!(limit == asked && world.usage(0) <= asked),
                // The charge in the way may itself be refused, by the limit that was tried.
                Err(refusal) => assert!(limit == 8 && refusal == Refusal::Busy),
            }
            world.assert_conserved(&[charged * nr_pages]);
        });
    }
}

/// The same with an uncharge that hides a charge from the second look at the usage.
#[test]
fn set_limit_beside_charge_and_uncharge() {
    explore_bounded(|| {
        let world = Arc::new(Model::new(shape(1, 3)));
        world.register(limited(0, NO_INDEX, 8)).expect("a free counter");
        charge::charge_forced(&world.cpu(0), 0, 2);
        let (charger, freer) = (Arc::clone(&world), Arc::clone(&world));
        let charged = thread::spawn(move || is_charged(try_charge(&charger.cpu(1), 0, 1)));
        let freed = thread::spawn(move || freer.uncharge(0, 1));
        let set = control::set_limit(&world.cpu(0), 0, Resource::Memory, 2);
        let charged = charged.join().expect("a checked thread does not panic");
        freed.join().expect("a checked thread does not panic");
        assert!(set.is_err() || world.usage(0) <= 2);
        world.assert_conserved(&[1 + charged]);
    });
}

/// However the two meet, the mark "untracked" does not outlive the registration.
#[test]
fn register_beside_fault() {
    loom::model(|| {
        let world = Arc::new(Model::new(Shape { cpus: 2, ..shape(1, 2) }));
        beside(&world, |world| world.add(0, NO_INDEX), |world| world.fault(1, owner(0)));
        let charged_before = world.sum(0, |share| &share.misses);
        let consumed = world.fault(1, owner(0));
        assert_ne!(consumed, Consumed::Untracked);
        world.assert_conserved(&[charged_before + 1]);
    });
}

/// A cgroup is closed while it faults; the grace period is the wait for the fault.
#[test]
fn close_beside_fault() {
    loom::model(|| {
        let world = Arc::new(Model::new(Shape { cpus: 2, ..shape(2, 2) }));
        world.add(0, NO_INDEX);
        world.add(1, 0);
        beside(
            &world,
            |world| control::close(&world.cpu(0), 1).expect("no children"),
            |world| world.fault(1, owner(1)),
        );
        let charged = world.sum(1, |share| &share.misses);
        for cpu in 0..2 {
            control::evict(&world.cpu(0), 1, cpu, 0).expect("a slot");
        }
        assert_eq!(world.stocked(), 0);
        world.assert_conserved(&[0, charged]);
        control::release(&world.cpu(0), 1).expect("in use");
        world.assert_conserved(&[0, 0]);
        assert_ne!(world.fault(1, owner(1)), Consumed::Hit);
    });
}

/// A closed cgroup is evicted while everything is drained: its stock goes one way only, and
/// release takes back what went the other.
#[test]
fn evict_beside_drain() {
    loom::model(|| {
        let world = Arc::new(Model::chain(shape(2, 3)));
        world.fault(0, owner(1));
        control::close(&world.cpu(0), 1).expect("no children");
        let (evicted, drained) = beside(
            &world,
            |world| control::evict(&world.cpu(0), 1, 0, 0).expect("a slot"),
            |world| world.drain(0, NO_INDEX),
        );
        assert_eq!(evicted + drained, 2);
        let orphaned = world.loss(Loss::OrphanedPages);
        assert_eq!(orphaned, drained.into());
        world.assert_conserved(&[0, 1 + orphaned]);
        control::release(&world.cpu(0), 1).expect("in use");
        world.assert_conserved(&[0, 0]);
    });
}

#[test]
fn a_counter_is_registered_once() {
    loom::model(|| {
        let world = Arc::new(Model::new(shape(1, 1)));
        let (one, other) = beside(
            &world,
            |world| world.register(limited(0, NO_INDEX, NO_LIMIT)),
            |world| {
                // Another cgroup, under the name that the world keeps for one never tracked.
                let args = Register { cgroup_id: cgroup_id(1), ..limited(0, NO_INDEX, NO_LIMIT) };
                world.register(args)
            },
        );
        let taken = Err(Refusal::Taken);
        assert!(one == Ok(0) && other == taken || one == taken && other == Ok(0));
        let tracked = [0, 1].map(|index| world.cpu(0).tracked(owner(index)).is_some());
        assert_eq!(tracked, [one.is_ok(), other.is_ok()]);
    });
}

#[test]
fn a_cgroup_is_registered_once() {
    loom::model(|| {
        let world = Arc::new(Model::new(shape(2, 1)));
        let register = |world: &Model, index| {
            let args = Register { cgroup_id: cgroup_id(0), ..limited(index, NO_INDEX, NO_LIMIT) };
            world.register(args)
        };
        let (one, other) =
            beside(&world, move |world| register(world, 0), |world| register(world, 1));
        assert_eq!(u32::from(one.is_ok()) + u32::from(other.is_ok()), 1);
        let in_use = [0, 1].map(|index| Word::load(&world.counter(index).id) != 0);
        assert_eq!(in_use, [one.is_ok(), other.is_ok()], "the loser's counter is free again");
    });
}
