//! A CPU that goes offline is drained by another one; the start of reclaim is reported once a millisecond at most.

use std::sync::atomic::AtomicU64;

use crate::support::plain::Plain;
use crate::support::{Shape, owner};
use memstock_common::event::{EVENT_INTERVAL_NS, EventKind, reclaim_began};
use memstock_common::{Event, Loss, NO_INDEX, StockWord, drain};

/// Two cgroups with pages stocked on both CPUs, in each slot of CPU 1.
fn stocked() -> Plain {
    let world = Plain::new(Shape { cpus: 2, slots: 2, batch: 8, cgroups: 2, ..Shape::default() });
    for index in 0..2 {
        world.add(index, NO_INDEX);
        world.demand(1, index);
        world.demand(0, index);
        // And a freed page, in the uncharge batch.
        world.slot(1, memstock_common::slot_of(owner(index), 2)).batch_up(owner(index), 1, 8);
        memstock_common::charge::charge_forced(&world.cpu(1), index, 1);
    }
    world
}

#[test]
fn all_that_a_dead_cpu_has_is_given_back() {
    let world = stocked();
    // A fault whose allocation never comes.
    world.fault(1, 0);
    drain::cpu_hotplug(&world.cpu(0), 1, 0);
    for slot in 0..2 {
        let slot = world.slot(1, slot);
        for word in [&slot.word, &slot.uncharge_batch] {
            assert_eq!(StockWord(word.load(std::sync::atomic::Ordering::SeqCst)), StockWord::EMPTY);
        }
    }
    // Seven in each stock, the pending page among them, and one in each batch.
    let event = Event {
        kind: EventKind::CpuHotplug as u32,
        time_ns: 1_000_000_000,
        nr_pages: 16,
        cpu: 1,
        ..Event::default()
    };
    assert_eq!(world.events(), [event]);
    world.assert_owned(&[2, 2]);
}

#[test]
fn a_living_cpu_does_not_drain_itself() {
    let world = stocked();
    let usage = world.usage(0);
    drain::cpu_hotplug(&world.cpu(1), 1, 1);
    assert_eq!(world.usage(0), usage);
    assert_eq!(world.events(), []);
}

/// CPU numbers have gaps: a CPU that is not possible has no stock.
#[test]
fn a_cpu_without_a_stock_is_told_of_all_the_same() {
    let world = stocked();
    drain::cpu_hotplug(&world.cpu(0), 7, 0);
    let told: Vec<_> = world.events().iter().map(|event| (event.cpu, event.nr_pages)).collect();
    assert_eq!(told, [(7, 0)]);
}

#[test]
fn reclaim_is_told_once_a_millisecond() {
    let world = stocked();
    let sent = AtomicU64::new(0);
    let tell = || reclaim_began(&world.cpu(0), &sent);
    let kinds = || world.events().iter().map(|event| event.kind).collect::<Vec<_>>();
    tell();
    world.advance(EVENT_INTERVAL_NS - 1);
    tell();
    assert_eq!(kinds(), [EventKind::ReclaimBegan as u32]);
    assert_eq!((world.loss(Loss::ReclaimsMerged), world.loss(Loss::EventsMerged)), (1, 0));
    world.advance(1);
    tell();
    assert_eq!(kinds(), [EventKind::ReclaimBegan as u32]);
    assert_eq!(world.loss(Loss::ReclaimsMerged), 1);
}
