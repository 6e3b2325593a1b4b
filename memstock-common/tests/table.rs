//! The patch's table, row by row: what the design promises about charge, stock, drain, limit and
//! event, each in the smallest world that shows it.

mod support;

use std::sync::atomic::AtomicU64;

use memstock_common::charge::{EVENT_INTERVAL_NS, charge, is_in_subtree, try_charge};
use memstock_common::control::set_limit;
use memstock_common::event::EventKind;
use memstock_common::fault::{Consumed, miss};
use memstock_common::stock::{Refill, untracked_mark};
use memstock_common::{
    Charge, DEFAULT_BATCH, Event, Loss, NO_INDEX, Over, Resource, Stock, StockWord, Word,
};
use support::{Shape, World, cgroup_id, empty_stock, owner};

type Plain = World<AtomicU64>;

fn read(word: &AtomicU64) -> u64 {
    Word::load(word)
}

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
    assert_eq!(set_limit(&world.cpu(0), index, resource, nr_pages), Ok(0));
}

#[test]
fn a_miss_charges_the_default_batch() {
    assert_eq!(DEFAULT_BATCH, 32);
    let world = Plain::chain(Shape { batch: DEFAULT_BATCH, ..Shape::default() });
    assert_eq!(world.fault(0, owner(3)), Consumed::Miss);
    assert_eq!(word(&world, 0, 0), StockWord::new(owner(3), 31));
    assert_eq!((0..4).map(|index| world.usage(index)).collect::<Vec<_>>(), [32; 4]);
}

#[test]
fn consume_hits_only_for_the_cached_cgroup_with_pages_left() {
    let stock: Stock<AtomicU64> = empty_stock();
    assert!(!stock.consume(5, 1), "nothing is cached");
    Word::store(&stock.word, StockWord::new(5, 3).0);
    assert!(!stock.consume(6, 1), "cached for another");
    assert!(!stock.consume(5, 4), "all or nothing");
    assert!(stock.consume(5, 2));
    assert!(stock.consume(5, 1));
    assert!(!stock.consume(5, 1), "no pages left");
    assert_eq!(stock.take(), StockWord::new(5, 0));
    assert_eq!(read(&stock.word), 0);
}

#[test]
fn a_stock_word_keeps_its_three_parts_apart() {
    let word = StockWord(0xffff_fffe << 32 | 0x0102 << 16 | 0x0304);
    assert_eq!((word.owner(), word.pending(), word.nr_pages()), (0xffff_fffe, 0x0102, 0x0304));
    assert_eq!(word.charged(), 0x0406);
    // A pending page is charged, but is not for the taking.
    let stock: Stock<AtomicU64> = empty_stock();
    Word::store(&stock.word, 5 << 32 | 2 << 16);
    assert!(!stock.consume(5, 1));
    assert_eq!(
        stock.refill(5, 4, 4),
        Refill { displaced: StockWord::EMPTY, excess: 2 },
        "pending pages take room"
    );
}

#[test]
fn a_refill_displaces_another_cgroup_and_returns_what_has_no_room() {
    let stock: Stock<AtomicU64> = empty_stock();
    let stays = |excess| Refill { displaced: StockWord::EMPTY, excess };
    assert_eq!(stock.refill(5, 3, 8), stays(0));
    assert_eq!(stock.refill(5, 7, 8), stays(2));
    assert_eq!(stock.refill(6, 9, 8), Refill { displaced: StockWord::new(5, 8), excess: 1 });
    assert_eq!(stock.take(), StockWord::new(6, 8));
}

#[test]
fn another_cgroups_stock_is_drained_before_the_charge() {
    let world = family(Shape { batch: 8, ..Shape::default() });
    // One batch fits under the parent, so the second cgroup needs what the first one has stocked.
    limit(&world, 0, Resource::Memory, 9);
    world.fault(0, owner(1));
    world.fault(0, owner(2));
    assert_eq!(word(&world, 0, 0), StockWord::new(owner(2), 7));
    assert_eq!([world.usage(0), world.usage(1), world.usage(2)], [9, 1, 8]);
    assert_eq!((world.failcnt(0), read(&world.slot(0, 0).drains)), (0, 1));
    world.assert_conserved(&[0, 1, 1]);
}

#[test]
fn a_refusal_names_the_nearest_failing_ancestor_and_rolls_back() {
    for failing in 0..4 {
        let world = Plain::chain(Shape { memsw: true, ..Shape::default() });
        limit(&world, failing, Resource::Memory, 7);
        limit(&world, 0, Resource::Memory, 7);
        let over = Over { ancestor: failing, resource: Resource::Memory };
        assert_eq!(try_charge(&world.cpu(0), 3, 8), Err(over));
        world.assert_conserved(&[0; 4]);
        for index in 0..4 {
            assert_eq!(world.failcnt(index), u64::from(index == failing));
            assert_eq!(read(&world.counter(index).memsw.failcnt), 0, "memory comes first");
            assert_eq!(world.watermark(index), 0, "a refused batch is no peak");
        }
        assert_eq!(try_charge(&world.cpu(0), 3, 7), Ok(()));
        world.assert_conserved(&[0, 0, 0, 7]);
    }
}

#[test]
fn a_refusal_of_memsw_takes_memory_back() {
    for failing in 0..4 {
        let world = Plain::chain(Shape { memsw: true, ..Shape::default() });
        limit(&world, failing, Resource::Memsw, 7);
        let over = Over { ancestor: failing, resource: Resource::Memsw };
        assert_eq!(try_charge(&world.cpu(0), 3, 8), Err(over));
        world.assert_conserved(&[0; 4]);
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
        world.fault(0, owner(1));
        assert_eq!((world.watermark(1), world.watermark(0)), (n, n));
    }
    world.uncharge(1, 5);
    assert_eq!((world.usage(1), world.watermark(1)), (0, 5), "a peak stays");
    // A page charged by force is real, so the peak shows it.
    limit(&world, 0, Resource::Memory, 0);
    world.fault(0, owner(2));
    assert_eq!((world.watermark(2), world.watermark(0)), (1, 5));
}

#[test]
fn charge_falls_to_one_page_and_then_to_force() {
    let world = family(Shape { batch: 8, ..Shape::default() });
    let cpu = world.cpu(0);
    limit(&world, 0, Resource::Memory, 9);
    let over = Over { ancestor: 0, resource: Resource::Memory };
    assert_eq!(charge(&cpu, 1, 8), Charge::Batch);
    assert!(world.events().is_empty());

    assert_eq!(charge(&cpu, 1, 8), Charge::Single(over));
    let near = Event {
        kind: EventKind::LimitNear as u32,
        resource: Resource::Memory as u32,
        time_ns: 1_000_000_000,
        cgroup_id: cgroup_id(1),
        ancestor_id: cgroup_id(0),
        nr_pages: 8,
        usage: 8,
        limit: 9,
    };
    assert_eq!(world.events(), [near]);

    world.advance(EVENT_INTERVAL_NS);
    let time_ns = near.time_ns + EVENT_INTERVAL_NS;
    assert_eq!(charge(&cpu, 1, 8), Charge::Forced(over));
    let near = Event { time_ns, usage: 9, ..near };
    let hit = Event { kind: EventKind::LimitHit as u32, nr_pages: 1, ..near };
    assert_eq!(world.events(), [near, hit]);
    assert_eq!((world.usage(0), world.failcnt(0), world.failcnt(1)), (10, 3, 0));
    assert_eq!((world.watermark(0), world.watermark(1)), (10, 10));

    // A batch of one page has nothing to fall to.
    world.advance(EVENT_INTERVAL_NS);
    assert_eq!(charge(&cpu, 2, 1), Charge::Forced(over));
    assert_eq!(world.events().len(), 1);
    assert_eq!(world.failcnt(0), 4);
}

#[test]
fn a_fault_counts_how_it_got_its_page() {
    let world = family(Shape { batch: 4, memsw: true, ..Shape::default() });
    limit(&world, 1, Resource::Memsw, 5);
    for _ in 0..7 {
        world.fault(0, owner(1));
    }
    let share = world.share(0, 1);
    assert_eq!(read(&share.misses), 4);
    assert_eq!(world.hits(1), 3);
    assert_eq!((read(&share.singles), read(&share.forced)), (1, 2));
    let slot = world.slot(0, 0);
    assert_eq!([read(&slot.hits), read(&slot.misses), read(&slot.refills)], [3, 4, 1]);
    assert!(world.events().iter().all(|event| event.resource == Resource::Memsw as u32));
    world.assert_conserved(&[0, 7, 0]);
}

#[test]
fn events_of_a_kind_within_a_millisecond_are_merged() {
    let world = family(Shape { batch: 8, ..Shape::default() });
    limit(&world, 0, Resource::Memory, 0);
    let kinds = || world.events().iter().map(|event| event.kind).collect::<Vec<_>>();
    let both = [EventKind::LimitNear as u32, EventKind::LimitHit as u32];
    world.fault(0, owner(1));
    assert_eq!(kinds(), both);
    world.advance(EVENT_INTERVAL_NS - 1);
    world.fault(0, owner(2));
    assert_eq!(kinds(), [0; 0], "of the same ancestor, whoever is charged");
    assert_eq!(world.loss(Loss::EventsMerged), 2);
    // Another counter's events are its own.
    limit(&world, 2, Resource::Memory, 1);
    world.fault(0, owner(2));
    assert_eq!(kinds(), both);
    world.advance(1);
    world.fault(0, owner(1));
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
            world.fault(cpu, owner(index));
        }
        world
    };
    for (subtree, drained) in [(0, [14, 7]), (1, [14, 0]), (2, [7, 0]), (3, [0, 7]), (4, [0, 0])] {
        let world = full();
        assert_eq!([world.drain(0, subtree), world.drain(1, subtree)], drained, "{subtree}");
        world.assert_conserved(&[1, 1, 1, 1, 0]);
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
    world.fault(0, owner(0));
    let untracked = owner(1);
    assert_eq!(world.fault(0, untracked), Consumed::Miss);
    assert_eq!(world.fault(0, untracked), Consumed::Untracked, "marked, so on the fast path");
    assert_eq!(word(&world, 0, 0), StockWord::new(owner(0), 7), "the stock stays who it is for");
    assert_eq!(world.fault(0, owner(0)), Consumed::Hit);
    assert_eq!(world.fault(0, untracked), Consumed::Untracked, "a hit keeps the mark");
    let slot = world.slot(0, 0);
    assert_eq!([read(&slot.misses), read(&slot.hits)], [1, 1]);
    world.assert_conserved(&[2, 0, 0, 0]);

    // The generation makes the mark stale, for whichever cgroup it changed.
    world.add(2, NO_INDEX);
    assert_eq!(world.fault(0, untracked), Consumed::Miss);
    world.add(1, NO_INDEX);
    assert_eq!(world.fault(0, untracked), Consumed::Miss);
    assert_eq!(word(&world, 0, 0), StockWord::new(untracked, 7));
    assert_ne!(untracked_mark(1, 2), untracked_mark(2, 1));
}

#[test]
fn stocked_pages_do_not_grow_with_the_number_of_cgroups() {
    for slots in [1, 2, 4] {
        let shape = Shape { cpus: 3, slots, batch: 32, cgroups: 64, memsw: true };
        let world = Plain::new(shape);
        for index in 0..64 {
            world.add(index, NO_INDEX);
        }
        for n in 0..192 {
            world.fault(n % 3, owner(n / 3));
            assert!(world.stocked() <= u64::from(3 * slots * 31));
        }
        assert_eq!(world.stocked(), u64::from(3 * slots * 31), "each slot is full");
        world.assert_conserved(&[3; 64]);
    }
}

#[test]
fn hits_settle_on_the_cgroup_that_had_them() {
    let world = family(Shape { cpus: 2, batch: 8, ..Shape::default() });
    for (cpu, index, faults) in [(0, 1, 4), (0, 2, 3), (1, 1, 6), (0, 1, 2), (0, 2, 1)] {
        for _ in 0..faults {
            world.fault(cpu, owner(index));
        }
    }
    assert_eq!(read(&world.share(0, 1).hits), 3 + 1, "all runs on CPU 0 are over");
    assert_eq!(read(&world.share(1, 1).hits), 0, "the run on CPU 1 is not");
    assert_eq!([world.hits(1), world.hits(2), world.hits(0)], [3 + 1 + 5, 2, 0]);
    assert_eq!(world.sum(1, |share| &share.misses), 3);
    assert_eq!(world.sum(2, |share| &share.misses), 2);
}

#[test]
fn a_missing_share_is_counted_and_charges_nothing() {
    let world = Plain::new(Shape { cpus: 2, ..Shape::default() });
    world.add(0, NO_INDEX);
    miss(&world.cpu(9), world.slot(0, 0), owner(0), 0);
    assert_eq!((world.loss(Loss::CountersMissing), world.usage(0)), (1, 0));
}
