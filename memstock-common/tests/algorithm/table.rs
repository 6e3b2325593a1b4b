//! The table of the patch that memstock is modelled on, row by row: what the design promises about charge, stock,
//! drain, limit and event, each in the smallest world that shows it.

use crate::support::plain::{Plain, read};
use crate::support::{Shape, cgroup_id, missed, owner};
use memstock_common::charge::{charge, is_in_subtree, try_charge};
use memstock_common::event::{EVENT_INTERVAL_NS, EventKind};
use memstock_common::fault::{Consumed, miss};
use memstock_common::page::allocated;
use memstock_common::{Charge, DEFAULT_BATCH, Event, Loss, NO_INDEX, Over, Resource, StockWord};

fn word(world: &Plain, cpu: u32, slot: u32) -> StockWord {
    StockWord(read(&world.slot(cpu, slot).word))
}

/// Counter 0 is the parent of counters 1 and 2.
fn family(shape: Shape) -> Plain {
    let world = Plain::new(Shape { cgroups: 3, ..shape });
    world.add(0, NO_INDEX);
    world.add(1, 0);
    world.add(2, 0);
    world
}

fn limit(world: &Plain, index: u32, resource: Resource, nr_pages: u64) {
    assert_eq!(world.set_limit(index, resource, nr_pages), Ok(0));
}

#[test]
fn a_miss_charges_the_default_batch() {
    assert_eq!(DEFAULT_BATCH, 32);
    let world = Plain::chain(Shape { batch: DEFAULT_BATCH, ..Shape::default() });
    assert_eq!(world.fault(0, 3), Consumed::Miss);
    assert_eq!(word(&world, 0, 0), missed(owner(3), 31));
    assert_eq!((0..4).map(|index| world.usage(index)).collect::<Vec<_>>(), [32; 4]);
}

#[test]
fn another_cgroups_stock_is_drained_before_the_charge() {
    let world = family(Shape { batch: 8, ..Shape::default() });
    // Only one batch fits under the parent, so the second cgroup needs the pages that the first one has stocked.
    limit(&world, 0, Resource::Memory, 9);
    world.demand(0, 1);
    world.demand(0, 2);
    assert_eq!(word(&world, 0, 0), StockWord::new(owner(2), 0, 7));
    assert_eq!([world.usage(0), world.usage(1), world.usage(2)], [9, 1, 8]);
    assert_eq!((world.failcnt(0), read(&world.slot(0, 0).drains)), (0, 1));
    world.assert_owned(&[0, 1, 1]);
}

#[test]
fn a_refusal_fits_into_a_register() {
    for ancestor in [0, 3, u32::MAX - 1] {
        for resource in [Resource::Memory, Resource::Memsw] {
            let refused = Err(Over { ancestor, resource });
            assert_eq!(Over::from_bits(Over::to_bits(refused)), refused);
        }
    }
    assert_eq!(Over::from_bits(Over::to_bits(Ok(()))), Ok(()));
}

#[test]
fn a_refusal_names_the_nearest_failing_ancestor_and_rolls_back() {
    for failing in 0..4 {
        let world = Plain::chain(Shape { memsw: true, ..Shape::default() });
        limit(&world, failing, Resource::Memory, 7);
        limit(&world, 0, Resource::Memory, 7);
        let over = Over { ancestor: failing, resource: Resource::Memory };
        assert_eq!(try_charge(&world.cpu(0), 3, 8), Err(over));
        world.assert_conserved();
        for index in 0..4 {
            assert_eq!(world.failcnt(index), u64::from(index == failing));
            assert_eq!(read(&world.counter(index).memsw.failcnt), 0, "memory comes first");
            assert_eq!(world.watermark(index), 0, "a refused batch is no peak");
        }
        assert_eq!(try_charge(&world.cpu(0), 3, 7), Ok(()));
        world.assert_conserved_with(&[0, 0, 0, 7]);
    }
}

#[test]
fn a_refusal_of_memsw_takes_memory_back() {
    for failing in 0..4 {
        let world = Plain::chain(Shape { memsw: true, ..Shape::default() });
        limit(&world, failing, Resource::Memsw, 7);
        let over = Over { ancestor: failing, resource: Resource::Memsw };
        assert_eq!(try_charge(&world.cpu(0), 3, 8), Err(over));
        world.assert_conserved();
        for index in 0..4 {
            let counter = world.counter(index);
            assert_eq!(read(&counter.memsw.failcnt), u64::from(index == failing));
            assert_eq!(world.failcnt(index) + world.watermark(index), 0);
            assert_eq!(read(&counter.memsw.watermark), 0);
        }
    }
    let world = Plain::chain(Shape::default());
    limit(&world, 0, Resource::Memsw, 0);
    assert_eq!(try_charge(&world.cpu(0), 3, 8), Ok(()), "swap accounting is off");
}

#[test]
fn the_watermark_of_a_child_does_not_show_a_batch_refused_above() {
    let world = family(Shape { batch: 8, ..Shape::default() });
    limit(&world, 0, Resource::Memory, 5);
    for n in 1..=5 {
        world.demand(0, 1);
        assert_eq!((world.watermark(1), world.watermark(0)), (n, n));
    }
    world.free_each(0, 0..5);
    world.drain(0, NO_INDEX);
    assert_eq!((world.usage(1), world.watermark(1)), (0, 5), "a peak stays");
    // A page charged by force exists, so the peak shows it.
    limit(&world, 0, Resource::Memory, 0);
    world.demand(0, 2);
    assert_eq!((world.watermark(2), world.watermark(0)), (1, 5));
}

#[test]
fn charge_falls_to_what_is_needed_and_then_to_force() {
    let world = family(Shape { batch: 8, ..Shape::default() });
    let cpu = world.cpu(0);
    limit(&world, 0, Resource::Memory, 9);
    let over = Over { ancestor: 0, resource: Resource::Memory };
    assert_eq!(charge(&cpu, 1, 1, 8).0, Charge::Batch);
    assert!(world.events().is_empty());

    assert_eq!(charge(&cpu, 1, 1, 8).0, Charge::Single(over));
    let near = Event {
        kind: EventKind::LimitNear as u32,
        resource: Resource::Memory as u32,
        time_ns: 1_000_000_000,
        cgroup_id: cgroup_id(1),
        ancestor_id: cgroup_id(0),
        nr_pages: 8,
        usage: 8,
        limit: 9,
        cpu: 0,
    };
    assert_eq!(world.events(), [near]);

    world.advance(EVENT_INTERVAL_NS);
    let time_ns = near.time_ns + EVENT_INTERVAL_NS;
    assert_eq!(charge(&cpu, 1, 1, 8).0, Charge::Forced(over));
    let near = Event { time_ns, usage: 9, ..near };
    let hit = Event { kind: EventKind::LimitHit as u32, nr_pages: 1, ..near };
    assert_eq!(world.events(), [near, hit]);
    assert_eq!((world.usage(0), world.failcnt(0), world.failcnt(1)), (10, 3, 0));
    assert_eq!((world.watermark(0), world.watermark(1)), (10, 10));

    // A batch of one page has nothing smaller to fall back to.
    world.advance(EVENT_INTERVAL_NS);
    assert_eq!(charge(&cpu, 2, 1, 1).0, Charge::Forced(over));
    assert_eq!(world.events().len(), 1);
    assert_eq!(world.failcnt(0), 4);

    // More than one page may be needed; they are charged all or none.
    world.advance(EVENT_INTERVAL_NS);
    limit(&world, 0, Resource::Memory, 15);
    assert_eq!(charge(&cpu, 1, 4, 8).0, Charge::Single(over));
    assert_eq!(charge(&cpu, 1, 4, 4).0, Charge::Forced(over));
    assert_eq!((world.usage(0), world.usage(1), world.usage(2)), (19, 18, 1));
    let nr_pages = world.events().iter().map(|event| event.nr_pages).collect::<Vec<_>>();
    assert_eq!(nr_pages, [8, 4]);
}

#[test]
fn a_fault_counts_how_it_got_its_page() {
    let world = family(Shape { batch: 4, memsw: true, ..Shape::default() });
    limit(&world, 1, Resource::Memsw, 5);
    for _ in 0..7 {
        world.demand(0, 1);
    }
    let share = world.share(0, 1);
    assert_eq!([read(&share.from_stock), read(&share.missed)], [3, 4]);
    assert_eq!(world.faults(1), 7);
    assert_eq!((read(&share.singles), read(&share.forced)), (1, 2));
    let slot = world.slot(0, 0);
    let counted = [&slot.faults, &slot.from_stock, &slot.missed, &slot.charges].map(read);
    assert_eq!(counted, [7, 3, 4, 4]);
    assert_eq!([read(&slot.refills), read(&slot.drains), read(&slot.uncharges)], [4, 0, 0]);
    assert!(world.events().iter().all(|event| event.resource == Resource::Memsw as u32));
    world.assert_owned(&[0, 7, 0]);
}

#[test]
fn events_of_a_kind_within_a_millisecond_are_merged() {
    let world = family(Shape { batch: 8, ..Shape::default() });
    limit(&world, 0, Resource::Memory, 0);
    let kinds = || world.events().iter().map(|event| event.kind).collect::<Vec<_>>();
    let both = [EventKind::LimitNear as u32, EventKind::LimitHit as u32];
    world.demand(0, 1);
    assert_eq!(kinds(), both);
    world.advance(EVENT_INTERVAL_NS - 1);
    world.demand(0, 2);
    assert_eq!(kinds(), [0; 0], "of the same ancestor, whoever is charged");
    assert_eq!(world.loss(Loss::EventsMerged), 2);
    // Events of another counter are not merged with these.
    limit(&world, 2, Resource::Memory, 1);
    world.demand(0, 2);
    assert_eq!(kinds(), both);
    world.advance(1);
    world.demand(0, 1);
    assert_eq!(kinds(), both);
    assert_eq!(world.loss(Loss::EventsMerged), 2);
}

#[test]
fn a_drain_touches_the_stocks_of_the_subtree_only() {
    let shape = Shape { cpus: 2, slots: 2, batch: 8, cgroups: 5, ..Shape::default() };
    // 0 is the parent of 1, which is the parent of 2; 3 stands alone.
    let full = || {
        let world = Plain::new(shape);
        for (index, parent) in [(0, NO_INDEX), (1, 0), (2, 1), (3, NO_INDEX)] {
            world.add(index, parent);
        }
        for (cpu, index) in [(0, 1), (0, 2), (1, 0), (1, 3)] {
            world.demand(cpu, index);
        }
        world
    };
    for (subtree, drained) in [(0, [14, 7]), (1, [14, 0]), (2, [7, 0]), (3, [0, 7]), (4, [0, 0])] {
        let world = full();
        assert_eq!([world.drain(0, subtree), world.drain(1, subtree)], drained, "{subtree}");
        world.assert_owned(&[1, 1, 1, 1, 0]);
        assert_eq!(world.drain(0, subtree), 0, "nothing is left to drain");
    }
    let world = full();
    assert_eq!([world.drain(0, NO_INDEX), world.drain(1, NO_INDEX)], [14, 14]);
    assert_eq!((world.stocked(), world.slots().map(|s| read(&s.drains)).sum()), (0, 4_u64));
    assert!(is_in_subtree(&world.cpu(0), 2, 0) && is_in_subtree(&world.cpu(0), 2, 2));
    assert!(!is_in_subtree(&world.cpu(0), 0, 2) && is_in_subtree(&world.cpu(0), 0, NO_INDEX));
}

#[test]
fn the_root_and_untracked_cgroups_are_never_charged_or_cached() {
    let world = Plain::new(Shape { batch: 8, ..Shape::default() });
    world.add(0, NO_INDEX);
    world.demand(0, 0);
    assert_eq!(world.demand(0, 1), Consumed::Untracked);
    assert_eq!(word(&world, 0, 0), StockWord::new(owner(0), 0, 7), "the stock stays who it is for");
    assert_eq!(world.demand(0, 0), Consumed::Hit);
    let slot = world.slot(0, 0);
    assert_eq!([&slot.faults, &slot.missed, &slot.from_stock].map(read), [2, 1, 1]);
    world.assert_owned(&[2, 0, 0, 0]);

    // What a CPU remembers of the untracked task does not outlive a registration.
    world.add(2, NO_INDEX);
    assert_eq!(world.demand(0, 1), Consumed::Untracked);
    world.add(1, NO_INDEX);
    assert_eq!(world.demand(0, 1), Consumed::Miss);
    assert_eq!(word(&world, 0, 0), StockWord::new(owner(1), 0, 7));
    world.assert_owned(&[2, 1, 0, 0]);
}

#[test]
fn stocked_pages_do_not_grow_with_the_number_of_cgroups() {
    for slots in [1, 2, 4] {
        let shape = Shape { cpus: 3, slots, cgroups: 64, memsw: true, ..Shape::default() };
        let world = Plain::new(shape);
        for index in 0..64 {
            world.add(index, NO_INDEX);
        }
        for n in 0..192 {
            world.demand(n % 3, n / 3);
            assert!(world.stocked() <= u64::from(3 * slots * 31));
        }
        assert_eq!(world.stocked(), u64::from(3 * slots * 31), "each slot is full");
        world.assert_owned(&[3; 64]);
    }
}

#[test]
fn faults_are_credited_to_the_cgroup_that_had_them() {
    let world = family(Shape { cpus: 2, batch: 8, ..Shape::default() });
    for (cpu, index, faults) in [(0, 1, 4), (0, 2, 3), (1, 1, 6), (0, 1, 2), (0, 2, 1)] {
        for _ in 0..faults {
            world.demand(cpu, index);
        }
    }
    assert_eq!(read(&world.share(0, 1).faults), 4 + 2, "all runs on CPU 0 are over");
    assert_eq!(read(&world.share(1, 1).faults), 0, "the run on CPU 1 is not");
    assert_eq!([world.faults(1), world.faults(2), world.faults(0)], [4 + 2 + 6, 4, 0]);
    assert_eq!([world.charged(1), world.charged(2)], [[9, 3], [2, 2]]);
}

/// Once the first cgroup's faults have been credited, a free does not fill its empty stock.
#[test]
fn faults_on_freed_pages_are_the_cgroups_that_freed_them() {
    let world = family(Shape { batch: 1, ..Shape::default() });
    world.touch(0, 1, 0);
    world.alloc(0, Some(2), 1, 0);
    world.free(0, 0, 0);
    world.touch(0, 1, 2);
    assert_eq!([1, 2].map(|index| world.faults(index)), [2, 0]);
    world.assert_owned(&[0, 1, 1]);
}

#[test]
fn a_missing_share_is_counted_and_charges_nothing() {
    let world = Plain::new(Shape { cpus: 2, ..Shape::default() });
    world.add(0, NO_INDEX);
    miss(&world.cpu(9), world.slot(0, 0), owner(0), true);
    assert_eq!((world.loss(Loss::CountersMissing), world.usage(0)), (1, 0));
    allocated(&world.cpu(9), 0, 0, true, true, || (owner(0), Some(world.slot(0, 0))));
    assert_eq!((world.loss(Loss::CountersMissing), world.usage(0)), (2, 0));
    let slot = world.slot(0, 0);
    assert_eq!([&slot.faults, &slot.from_stock, &slot.missed].map(read), [0; 3]);
    world.assert_owned(&[0; 4]);
}
