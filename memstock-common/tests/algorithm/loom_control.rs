//! The control programs concurrent with faults, charges and drains, under every interleaving that matters.
//!
//! `support/checked.rs` describes how they are explored, and on which memory model.

use crate::support::checked::{Model, beside, explore, explore_bounded, is_charged, shape};
use crate::support::{Shape, cgroup_id, key, limited};
use loom::sync::Arc;
use loom::thread;
use memstock_common::charge::{self, try_charge};
use memstock_common::control::{Limits, Refusal, Register};
use memstock_common::counter::needed_above;
use memstock_common::fault::Consumed;
use memstock_common::huge::charge_huge;
use memstock_common::limit;
use memstock_common::swap::set_swapped;
use memstock_common::{NO_INDEX, NO_LIMIT, Resource, Word, World as _};

/// Once a limit is set, no charge that began earlier can exceed it.
#[test]
fn set_limit_beside_charge() {
    for (nr_pages, asked) in [(1, 1), (2, 1), (1, 0)] {
        explore(move || {
            let world = Arc::new(Model::new(shape(1, 3)));
            world.register(limited(0, NO_INDEX, 8)).expect("a free counter");
            let (charged, set) = beside(
                &world,
                move |world| is_charged(try_charge(&world.cpu(1), 0, nr_pages)),
                move |world| world.set_limit(0, Resource::Memory, asked),
            );
            let limit = Word::load(&world.counter(0).memory_limit);
            match set {
                Ok(_) => assert!(limit == asked && world.usage(0) <= asked),
                // The charge in the way may itself be refused, by the limit that was tried.
                Err(refusal) => assert!(limit == 8 && refusal == Refusal::Busy),
            }
            world.assert_conserved_with(&[charged * nr_pages]);
        });
    }
}

/// The same with an uncharge that hides a charge from the second read of the usage.
#[test]
fn set_limit_beside_charge_and_uncharge() {
    explore_bounded(|| {
        let world = Arc::new(Model::new(shape(1, 3)));
        world.register(limited(0, NO_INDEX, 8)).expect("a free counter");
        charge::charge_forced(&world.cpu(0), 0, 2);
        let (charger, freer) = (Arc::clone(&world), Arc::clone(&world));
        let charged = thread::spawn(move || is_charged(try_charge(&charger.cpu(1), 0, 1)));
        let freed = thread::spawn(move || freer.uncharge(0, 1));
        let set = world.set_limit(0, Resource::Memory, 2);
        let charged = charged.join().expect("a checked thread does not panic");
        freed.join().expect("a checked thread does not panic");
        assert!(set.is_err() || world.usage(0) <= 2);
        world.assert_conserved_with(&[1 + charged]);
    });
}

/// Of two callers that set limits, one sets all of its own, and charges respect them.
#[test]
fn set_limits_beside_each_other_and_charge() {
    explore_bounded(|| {
        let world = Arc::new(Model::new(Shape { memsw: true, ..shape(1, 3) }));
        let args = Register { memsw_limit: 9, ..limited(0, NO_INDEX, 8) };
        world.register(args).expect("a free counter");
        let asked = [(1, 3), (2, 2)];
        let set = |world: &Model, (memory, memsw)| {
            let asked = Limits { index: 0, memory, memsw, force: 0 };
            limit::set_limits(&world.cpu(0), asked)
        };
        let (charger, setter) = (Arc::clone(&world), Arc::clone(&world));
        let charged = thread::spawn(move || is_charged(try_charge(&charger.cpu(1), 0, 2)));
        let other = thread::spawn(move || set(&setter, asked[1]));
        let one = set(&world, asked[0]);
        let charged = charged.join().expect("a checked thread does not panic");
        let other = other.join().expect("a checked thread does not panic");
        let counter = world.counter(0);
        let limits = (Word::load(&counter.memory_limit), Word::load(&counter.memsw_limit));
        let mut due = vec![];
        due.extend(one.is_ok().then_some(asked[0]));
        due.extend(other.is_ok().then_some(asked[1]));
        if due.is_empty() {
            due.push((8, 9));
        }
        assert!(due.contains(&limits), "{limits:?} after {one:?} and {other:?}");
        for set in [one, other] {
            assert!(matches!(set, Ok(0) | Err(Refusal::Busy | Refusal::Setting)), "{set:?}");
        }
        assert!(charged * 2 <= limits.0);
        world.assert_conserved_with(&[charged * 2]);
    });
}

/// More or less in swap makes no room that never was, and takes none that is there.
#[test]
fn swapped_beside_charge() {
    for (before, after, nr_pages, fits) in [(8, 9, 3, false), (8, 7, 2, true)] {
        explore(move || {
            let world = Arc::new(Model::new(Shape { memsw: true, ..shape(1, 3) }));
            let args = Register { memsw_limit: 10, ..limited(0, NO_INDEX, 10) };
            world.register(args).expect("a free counter");
            set_swapped(&world.cpu(0), 0, before).expect("a counter");
            let (charged, set) = beside(
                &world,
                move |world| try_charge(&world.cpu(1), 0, nr_pages).is_ok(),
                move |world| set_swapped(&world.cpu(0), 0, after),
            );
            assert_eq!((charged, set), (fits, Ok(0)), "{before} to {after}");
        });
    }
}

/// The allowance for a huge page lasts exactly as long as the usage is above the limit, whatever is charged and
/// uncharged meanwhile.
#[test]
fn a_huge_page_beside_charge_and_uncharge() {
    explore_bounded(|| {
        let world = Arc::new(Model::new(shape(1, 1)));
        world.register(limited(0, NO_INDEX, 4)).expect("a free counter");
        charge::charge_forced(&world.cpu(0), 0, 3);
        let (charger, freer) = (Arc::clone(&world), Arc::clone(&world));
        let charged = thread::spawn(move || is_charged(try_charge(&charger.cpu(1), 0, 1)));
        let freed = thread::spawn(move || freer.uncharge(0, 3));
        let huge = is_charged(charge_huge(&world.cpu(0), 0, 4));
        let charged = charged.join().expect("a checked thread does not panic");
        freed.join().expect("a checked thread does not panic");
        let usage = charged + 4 * huge;
        world.assert_conserved_with(&[usage]);
        let counter = world.counter(0);
        let allowed = Word::load(&counter.huge);
        assert_eq!(needed_above(usage, 0, 4, allowed), 0, "{usage} pages, {allowed} allowed");
        assert!(usage > 4 || allowed == 0, "{usage} pages, {allowed} allowed");
    });
}

/// However the two interleave, a CPU never remembers a task as untracked for longer than it is.
#[test]
fn register_beside_fault() {
    explore(|| {
        let world = Arc::new(Model::new(Shape { cpus: 2, ..shape(1, 2) }));
        beside(&world, |world| world.add(0, NO_INDEX), |world| world.touch(1, 0, 0));
        let charged_before = world.owned()[0];
        assert_ne!(world.touch(1, 0, 1), Consumed::Untracked);
        world.assert_owned(&[charged_before + 1]);
    });
}

/// A cgroup is closed while one of its tasks faults and allocates; joining the thread stands for the grace period. The
/// page is charged to the cgroup or to its parent.
#[test]
fn close_beside_fault_and_allocation() {
    explore(|| {
        let world = Arc::new(Model::new(Shape { cpus: 2, ..shape(2, 2) }));
        world.add(0, NO_INDEX);
        world.add(1, 0);
        let (_, consumed) = beside(
            &world,
            |world| world.close(1).expect("a tracked cgroup"),
            |world| world.touch(1, 1, 0),
        );
        assert_eq!(consumed, Consumed::Miss);
        world.assert_conserved();
        let owned = world.owned();
        assert_eq!(owned[0] + owned[1], 1);
        world.touch(1, 1, 1);
        world.assert_owned(&[owned[0] + 1, owned[1]]);

        world.flush(1, 1);
        assert_eq!(world.stocked_for(1) + world.uncharging(1), 0);
        assert_eq!(world.release(1).is_ok(), owned[1] == 0);
        world.free(1, 0, 0);
        if owned[1] > 0 {
            world.flush(1, 1);
            assert_eq!(world.release(1), Ok(0));
        }
        world.free(1, 1, 0);
        world.assert_owned(&[0, 0]);
    });
}

/// A dying cgroup is flushed while everything is drained: its stock is given back once.
#[test]
fn flush_beside_drain() {
    explore(|| {
        let world = Arc::new(Model::chain(shape(2, 3)));
        world.touch(0, 1, 0);
        world.close(1).expect("a tracked cgroup");
        let (flushed, drained) =
            beside(&world, |world| world.flush(1, 0), |world| world.drain(0, NO_INDEX));
        assert_eq!(flushed + drained, 2);
        world.assert_owned(&[0, 1]);
    });
}

/// The last page of a dying cgroup is freed while the cgroup is flushed and released. Once the release succeeds nothing
/// is left behind, wherever the counter is used next.
#[test]
fn the_last_free_beside_flush_and_release() {
    for memsw in [false, true] {
        explore(move || {
            let world = Arc::new(Model::new(Shape { cpus: 2, memsw, ..shape(3, 1) }));
            world.add(0, NO_INDEX);
            world.add(1, NO_INDEX);
            world.add(2, 0);
            world.touch(1, 2, 0);
            world.close(2).expect("a tracked cgroup");
            world.flush(2, 1);
            let (again, ()) = beside(
                &world,
                |world| {
                    world.flush(2, 1);
                    world.release(2).is_ok() && world.register(limited(2, 1, NO_LIMIT)).is_ok()
                },
                |world| world.free(1, 0, 0),
            );
            world.assert_owned(&[0; 3]);
            if !again {
                world.flush(2, 1);
                assert_eq!(world.release(2), Ok(0));
            }
        });
    }
}

/// The page goes to the stock, or the uncharge batch, of a CPU that is flushed meanwhile.
#[test]
fn free_beside_flush() {
    for is_cached in [false, true] {
        explore(move || {
            let world = Arc::new(Model::new(Shape { cpus: 2, ..shape(2, 3) }));
            world.add(0, NO_INDEX);
            world.add(1, 0);
            let cpu = u32::from(is_cached);
            world.touch_each(1, 1, 0..2);
            world.close(1).expect("a tracked cgroup");
            world.flush(1, 1 - cpu);
            beside(
                &world,
                move |world| {
                    world.flush(1, cpu);
                    world.release(1).expect_err("a page is in use");
                },
                move |world| world.free(cpu, 0, 0),
            );
            world.assert_owned(&[0, 1]);
            world.flush(1, 0);
            world.flush(1, 1);
            assert_eq!((world.usage(0), world.usage(1)), (1, 1));
        });
    }
}

#[test]
fn a_counter_is_registered_once() {
    explore(|| {
        let world = Arc::new(Model::new(shape(1, 1)));
        let (one, other) = beside(
            &world,
            |world| world.register(limited(0, NO_INDEX, NO_LIMIT)),
            |world| {
                // Another cgroup, with a key that the world reserves for an untracked one.
                let args = Register { cgroup_id: cgroup_id(1), ..limited(0, NO_INDEX, NO_LIMIT) };
                world.register(args)
            },
        );
        let taken = Err(Refusal::Taken);
        assert!(one == Ok(0) && other == taken || one == taken && other == Ok(0));
        let tracked = [0, 1].map(|index| world.cpu(0).tracked(key(index)).is_some());
        assert_eq!(tracked, [one.is_ok(), other.is_ok()]);
    });
}

#[test]
fn a_cgroup_is_registered_once() {
    explore(|| {
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
