//! How charged pages are counted: from a stock, or with a charge on the shared counters.

use crate::support::plain::{Plain, read};
use crate::support::{Shape, missed, owner};
use memstock_common::fault::{Consumed, consume_or_miss, count_unserved};
use memstock_common::{NO_INDEX, StockWord};

fn word(world: &Plain, cpu: u32) -> StockWord {
    StockWord(read(&world.slot(cpu, 0).word))
}

/// `cgroups` sibling cgroups, on two CPUs.
fn row(cgroups: u32, batch: u32) -> Plain {
    let world = Plain::new(Shape { cpus: 2, batch, cgroups, memsw: true, ..Shape::default() });
    for index in 0..cgroups {
        world.add(index, NO_INDEX);
    }
    world
}

/// A fault misses and is not served: nothing is pending, and the allocation charges. The fault counts for the cgroup
/// that it missed for, not for the one that the slot served before.
#[test]
fn what_a_fault_could_not_charge_its_allocation_does() {
    let world = row(2, 8);
    world.touch(0, 1, 0);
    let (slot, before) = (world.slot(0, 0), world.shared_operations());
    assert_eq!(consume_or_miss(slot, owner(0)), Consumed::Miss);
    count_unserved(&world.cpu(0), slot, owner(0));
    assert_eq!(
        (word(&world, 0), world.shared_operations()),
        (StockWord::new(owner(1), 0, 7), before)
    );
    world.alloc(0, Some(0), 1, 0);
    assert_eq!(word(&world, 0), StockWord::new(owner(0), 0, 7));
    assert_eq!((world.charged(0), world.faults(0), world.usage(0)), ([0, 1], 1, 8));
    assert_eq!((world.faults(1), world.usage(1)), (1, 1));
    assert_eq!(world.touch(0, 0, 2), Consumed::Hit);
    assert_eq!((world.charged(0), world.faults(0)), ([1, 1], 2));
    world.assert_owned(&[2, 1]);
}

/// Only the pages that were charged for a block count as missed; stocked pages and reused freed pages were charged
/// before.
#[test]
fn pages_are_counted_by_how_they_were_charged() {
    let world = row(2, 8);
    world.touch(0, 0, 0);
    assert_eq!(world.charged(0), [0, 1]);
    world.alloc(0, Some(0), 16, 4);
    assert_eq!(world.charged(0), [7, 1 + 9], "seven were stocked");
    world.alloc(0, Some(0), 32, 3);
    assert_eq!(world.charged(0), [7, 10 + 8], "no batch around them");
    // The fault charges a page; the block takes it, and one from the stock.
    world.fault(0, 0);
    world.alloc(0, Some(0), 40, 1);
    assert_eq!(world.charged(0), [7 + 1, 18 + 1]);
    // Three freed pages are in another CPU's uncharge batch; a fault takes one of them.
    world.free_each(1, 16..19);
    assert_eq!(world.touch(1, 0, 50), Consumed::Miss);
    assert_eq!(world.charged(0), [8 + 1, 19], "no shared counter was charged");
    world.alloc(1, Some(0), 52, 2);
    assert_eq!(world.charged(0), [9 + 2, 19 + 2], "two were left");
    // A page that is drained between fault and allocation is charged again.
    world.drain(0, NO_INDEX);
    world.fault(0, 0);
    world.drain(0, NO_INDEX);
    world.alloc(0, Some(0), 60, 0);
    assert_eq!(world.charged(0), [11, 21 + 1]);
    assert_eq!(world.charged(1), [0, 0]);
    let counted = |cpu: u32| [&world.slot(cpu, 0).from_stock, &world.slot(cpu, 0).missed].map(read);
    assert_eq!([counted(0), counted(1)], [[8, 20], [3, 2]]);
    world.assert_owned(&[1 + 16 + 8 + 2 - 3 + 1 + 4 + 1, 0]);
}

/// A pending page that another cgroup's charge drained is not counted, whoever is next.
#[test]
fn a_drained_page_leaves_no_mark() {
    let world = row(2, 8);
    world.fault(0, 0);
    assert_eq!(word(&world, 0), missed(owner(0), 7));
    world.alloc(0, Some(1), 0, 0);
    assert_eq!(word(&world, 0), StockWord::new(owner(1), 0, 7));
    world.touch(0, 1, 1);
    assert_eq!((world.charged(0), world.charged(1)), ([0, 0], [1, 1]));
    // Without a batch, pages are charged one at a time, and each is a miss.
    let world = row(1, 1);
    for n in 1..=5 {
        world.fault(0, 0);
        world.fault(0, 0);
        world.alloc(0, Some(0), n, 0);
        assert_eq!((world.charged(0), world.faults(0)), ([0, n], 2 * n));
    }
}

/// The page of the fault counts as missed even if the rest of the block is charged.
#[test]
fn a_block_takes_the_page_that_its_fault_was_charged_for() {
    let world = row(1, 8);
    world.fault(0, 0);
    world.alloc(0, Some(0), 0, 4);
    assert_eq!(world.charged(0), [7, 1 + 8]);
    assert_eq!((world.usage(0), word(&world, 0)), (16, StockWord::new(owner(0), 0, 0)));
    world.assert_owned(&[16]);
}
