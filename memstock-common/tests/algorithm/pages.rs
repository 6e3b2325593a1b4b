//! Pages from allocation to free: what is committed, charged and uncharged, for whom, and how often the shared counters
//! are used.

use std::sync::atomic::AtomicU64;

use crate::support::plain::{Plain, read};
use crate::support::{Shape, missed, owner};
use memstock_common::fault::Consumed;
use memstock_common::page::{self, CHUNK_ORDER, CHUNK_PAGES, owner_in};
use memstock_common::{Entry, Loss, NO_INDEX, StockWord};

fn word(world: &Plain, cpu: u32) -> StockWord {
    StockWord(read(&world.slot(cpu, 0).word))
}

fn batch_of(world: &Plain, cpu: u32) -> StockWord {
    StockWord(read(&world.slot(cpu, 0).uncharge_batch))
}

fn owner_at(world: &Plain, pfn: u64) -> u32 {
    owner_in(Entry::load(world.entry(pfn)))
}

/// `cgroups` sibling cgroups, on two CPUs.
fn row(cgroups: u32, batch: u32) -> Plain {
    let world = Plain::new(Shape { cpus: 2, batch, cgroups, memsw: true, ..Shape::default() });
    for index in 0..cgroups {
        world.add(index, NO_INDEX);
    }
    world
}

/// Charges, uncharges and drains on all CPUs.
fn operations(world: &Plain) -> [u64; 3] {
    let sum = |of: fn(&memstock_common::Stock<AtomicU64>) -> &AtomicU64| {
        world.slots().map(|stock| read(of(stock))).sum()
    };
    [sum(|stock| &stock.charges), sum(|stock| &stock.uncharges), sum(|stock| &stock.drains)]
}

/// Rounds of `n` pages mapped, touched and unmapped on one CPU. The stock and the uncharge batch keep what a round
/// frees: the first round stocks a batch, and each later one takes `batch` pages from there, and needs ⌈n/batch⌉ - 1
/// more batches, which it gives back.
#[test]
fn a_loop_touches_the_shared_counters_only_for_what_is_more_than_a_batch() {
    for batch in [1, 2, 3, 7, 8, 32, 64] {
        for n in (1..=4 * u64::from(batch) + 1).chain([200, 1024]) {
            let world = row(1, batch);
            let more = n.div_ceil(batch.into()) - 1;
            for round in 1..=4 {
                world.touch_each(0, 0, 0..n);
                world.assert_owned(&[n]);
                world.free_each(0, 0..n);
                world.assert_owned(&[0]);
                let due = [1 + more * round, more * round, 0];
                assert_eq!(operations(&world), due, "{n} pages, batches of {batch}");
            }
            assert_eq!(word(&world, 0), StockWord::new(owner(0), 0, batch));
            assert_eq!(batch_of(&world, 0), StockWord::EMPTY);
        }
    }
}

/// Pages in the uncharge batch are reused as well: together up to twice the batch, less a page.
#[test]
fn a_loop_is_served_from_the_uncharge_batch_too() {
    for spare in 0..8_u64 {
        for n in 0..32_u64 {
            let world = row(1, 8);
            // A full stock, and `spare` pages in the uncharge batch.
            world.touch_each(0, 0, 0..8 + spare);
            world.drain(0, NO_INDEX);
            world.touch(0, 0, 100);
            world.free_each(0, 0..8 + spare);
            assert_eq!(batch_of(&world, 0).charged(), (7 + spare) as u32 % 8);
            let spare = (7 + spare) % 8;
            let [charges, uncharges, drains] = operations(&world);
            world.touch_each(0, 0, 0..n);
            world.free_each(0, 0..n);
            let more = n.saturating_sub(8 + spare).div_ceil(8);
            assert_eq!(operations(&world), [charges + more, uncharges + more, drains]);
            world.assert_owned(&[1]);
        }
    }
}

/// The baseline of the benches: pages are charged one by one, and uncharged one by one or in batches.
#[test]
fn without_coalescing_each_page_is_charged_by_itself() {
    for (uncharge_batch, uncharges) in [(1, 100), (32, 3)] {
        let world = Plain::new(Shape {
            batch: 1,
            stock_pages: Some(0),
            uncharge_batch: Some(uncharge_batch),
            cgroups: 1,
            ..Shape::default()
        });
        world.add(0, NO_INDEX);
        for round in 1..=4 {
            world.touch_each(0, 0, 0..100);
            world.assert_owned(&[100]);
            world.free_each(0, 0..100);
            world.assert_owned(&[0]);
            let [charges, due, drains] = operations(&world);
            assert_eq!((charges, due / uncharges, drains), (100 * round, round, 0));
            assert_eq!(word(&world, 0).charged(), 0, "nothing is stocked");
        }
    }
}

#[test]
fn a_huge_page_costs_one_charge_and_one_uncharge() {
    let world = row(1, 32);
    world.alloc(0, Some(0), 512, 9);
    assert_eq!((operations(&world), world.usage(0)), ([1, 0, 0], 512), "no batch on top");
    world.assert_owned(&[512]);
    world.free(0, 512, 9);
    assert_eq!((operations(&world), world.usage(0)), ([1, 1, 0], 0));

    // With a stocked batch, a batch less is charged and uncharged, and still once each.
    assert_eq!(world.fault(0, 0), Consumed::Miss);
    let [charges, uncharges, _] = operations(&world);
    for round in 1..=3 {
        world.fault(0, 0);
        world.alloc(0, Some(0), 0, 9);
        assert_eq!((world.usage(0), word(&world, 0).charged()), (512, 0));
        world.assert_owned(&[512]);
        world.free(0, 0, 9);
        assert_eq!((world.usage(0), word(&world, 0).charged()), (32, 32));
        assert_eq!(operations(&world), [charges + round, uncharges + round, 0]);
    }
}

/// A block that needs less than a batch charges a whole one, and stocks the rest.
#[test]
fn what_a_block_leaves_of_a_batch_is_stocked() {
    for order in 0..=10 {
        let world = row(1, 32);
        world.alloc(0, Some(0), 0, order);
        let n = 1 << order;
        assert_eq!(word(&world, 0).nr_pages(), 32_u32.saturating_sub(n));
        assert_eq!(world.usage(0), u64::from(n.max(32)));
        world.assert_owned(&[n.into()]);
        // The next block takes stocked pages before it charges.
        world.alloc(0, Some(0), 0, order);
        world.assert_owned(&[n.into()]);
        assert_eq!(world.loss(Loss::Healed), n.into());
    }
}

/// A block reuses pages in the uncharge batch, and charges only what is missing.
#[test]
fn a_block_takes_stock_and_uncharge_batch_and_charges_the_rest() {
    let world = row(2, 8);
    world.touch_each(0, 0, 0..9);
    world.drain(0, NO_INDEX);
    world.free_each(0, 0..5);
    assert_eq!(batch_of(&world, 0), StockWord::new(owner(0), 0, 5));
    world.alloc(0, Some(0), 64, 4);
    assert_eq!((world.usage(0), batch_of(&world, 0)), (4 + 16, StockWord::EMPTY));
    assert_eq!(world.charged(0), [7 + 5, 2 + 11], "freed ones were charged before");
    world.assert_owned(&[20, 0]);
    // Another cgroup's batch is left alone.
    world.free(1, 5, 0);
    world.alloc(1, Some(1), 128, 0);
    assert_eq!(batch_of(&world, 1), StockWord::new(owner(0), 0, 1));
    world.assert_owned(&[19, 1]);
}

#[test]
fn a_fault_that_allocates_nothing_keeps_one_page_pending() {
    let world = row(1, 8);
    for n in 1..=100_u64 {
        world.fault(0, 0);
        assert_eq!(word(&world, 0), missed(owner(0), 7));
        assert_eq!((world.usage(0), world.faults(0)), (8, n));
        assert_eq!(world.charged(0), [0, 0], "nothing was allocated");
    }
    world.alloc(0, Some(0), 0, 0);
    assert_eq!(world.charged(0), [0, 1], "charged for the first of the faults, and counted once");
    assert_eq!(word(&world, 0), StockWord::new(owner(0), 0, 7), "it is the page allocated next");
    world.assert_owned(&[1]);
}

#[test]
fn a_task_preempted_between_fault_and_allocation_leaves_its_page_pending() {
    let world = row(1, 8);
    world.fault(0, 0);
    world.alloc(1, Some(0), 0, 0);
    assert_eq!(
        [word(&world, 0), word(&world, 1)],
        [missed(owner(0), 7), StockWord::new(owner(0), 0, 7)]
    );
    world.assert_owned(&[1]);
    assert_eq!(world.touch(0, 0, 1), Consumed::Hit);
    assert_eq!(word(&world, 0), StockWord::new(owner(0), 0, 7), "and the next fault uses it");
    world.assert_owned(&[2]);
}

/// Another task runs in between, and its fault drains the pending page with the stock.
#[test]
fn another_cgroup_takes_the_slot_between_fault_and_allocation() {
    let world = row(2, 8);
    world.fault(0, 0);
    world.demand(0, 1);
    assert_eq!((world.usage(0), operations(&world)), (0, [2, 0, 1]));
    world.alloc(0, Some(0), 9, 0);
    assert_eq!(word(&world, 0), StockWord::new(owner(0), 0, 7));
    world.assert_owned(&[1, 1]);
}

#[test]
fn a_page_freed_on_another_cpu_waits_in_its_uncharge_batch() {
    let world = row(2, 8);
    world.touch_each(0, 0, 0..24);
    for n in 1..=16 {
        world.free(1, n - 1, 0);
        assert_eq!(u64::from(batch_of(&world, 1).charged()), n % 8);
        assert_eq!(operations(&world), [3, n / 8, 0]);
        assert_eq!(world.usage(0), 24 - n / 8 * 8);
    }
    // A stock that is cached for the owner takes them, even if it is empty.
    world.touch_each(1, 0, 24..32);
    assert_eq!(word(&world, 1), StockWord::new(owner(0), 0, 0));
    world.free_each(1, 16..24);
    assert_eq!(word(&world, 1), StockWord::new(owner(0), 0, 8));
    // One cached for another cgroup does not.
    world.demand(1, 1);
    world.free(1, 24, 0);
    assert_eq!(batch_of(&world, 1), StockWord::new(owner(0), 0, 1));
    world.assert_owned(&[7, 1]);
    assert_eq!(world.drain(1, NO_INDEX), 7 + 1, "a drain takes the uncharge batch as well");
    world.assert_owned(&[7, 1]);
}

#[test]
fn pages_stay_with_the_cgroup_that_was_charged() {
    let world = row(2, 8);
    world.touch(0, 0, 0);
    world.alloc(0, Some(1), 1, 0);
    world.assert_owned(&[1, 1]);
    // Whoever frees them, on any CPU.
    world.free(1, 0, 0);
    world.free(1, 1, 0);
    world.assert_owned(&[0, 0]);
    assert_eq!((world.uncharging(0), world.uncharging(1)), (0, 1), "a batch has one owner");
}

#[test]
fn what_the_kernel_does_not_charge_is_nobodys() {
    let world = row(1, 8);
    world.alloc(0, None, 0, 0);
    world.alloc(0, None, 8, 3);
    assert_eq!((world.usage(0), owner_at(&world, 0), operations(&world)), (0, 0, [0; 3]));
    world.free(0, 0, 0);
    world.free(0, 8, 3);
    // Nor does it take the pending page of a fault.
    world.fault(0, 0);
    world.alloc(0, None, 0, 0);
    assert_eq!(word(&world, 0).pending(), 1);
    world.assert_owned(&[0]);
}

#[test]
fn a_block_may_be_freed_in_parts_and_parts_as_a_block() {
    let world = row(1, 8);
    world.alloc(0, Some(0), 0, 9);
    world.free_each(0, 0..100);
    world.assert_owned(&[412]);
    world.free(0, 128, 7);
    world.assert_owned(&[284]);
    world.free(0, 0, 9);
    world.assert_owned(&[0]);
    world.free(0, 0, 9);
    world.assert_owned(&[0]);

    world.touch_each(0, 0, 0..16);
    world.free(0, 0, 4);
    world.assert_owned(&[0]);
    assert_eq!(world.loss(Loss::Healed), 0);
}

#[test]
fn a_lost_free_is_repaired_when_the_page_is_allocated_again() {
    let world = row(2, 8);
    world.touch(0, 0, 0);
    // Its free was lost.
    world.touch(0, 1, 0);
    world.assert_owned(&[0, 1]);
    assert_eq!(world.loss(Loss::Healed), 1);
    world.alloc(0, None, 0, 0);
    world.assert_owned(&[0, 0]);
    assert_eq!(world.loss(Loss::Healed), 2, "also by what is not charged");
    world.touch(0, 0, 3);
    world.touch(0, 1, 6);
    world.alloc(0, Some(0), 0, 3);
    world.assert_owned(&[8, 0]);
    assert_eq!(world.loss(Loss::Healed), 4, "also within a block");
    world.alloc(0, None, 0, 10);
    world.assert_owned(&[0, 0]);
    assert_eq!(world.loss(Loss::Healed), 12);
}

#[test]
fn a_lost_free_is_repaired_when_the_page_leaves_the_free_list() {
    let world = row(1, 8);
    world.touch(0, 0, 0);
    // Its free was lost.
    page::drained(&world.cpu(0), 0, 0);
    world.assert_owned(&[0]);
    assert_eq!(world.loss(Loss::Healed), 1);
    page::drained(&world.cpu(0), 0, 0);
    assert_eq!(world.loss(Loss::Healed), 1, "once");
}

#[test]
fn pages_outside_the_map_are_counted_and_not_charged() {
    let world = row(1, 8);
    let outside = u64::from(CHUNK_PAGES);
    world.alloc(0, Some(0), outside, 0);
    world.free(0, outside, 3);
    assert_eq!(world.loss(Loss::PagesOutside), 1 + 8);
    world.alloc(0, Some(0), u64::MAX, 0);
    assert_eq!(world.loss(Loss::PagesOutside), 10);
    // A block larger than a chunk would extend into the next one.
    world.alloc(0, Some(0), 0, CHUNK_ORDER + 1);
    assert_eq!(world.loss(Loss::PagesOutside), 10 + 2 * outside);
    assert_eq!(world.usage(0), 0);
}
