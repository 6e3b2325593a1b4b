//! Limits: setting them together, rearming their events, memory+swap, and huge pages that exceed them.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::support::plain::{Plain, pair, read};
use crate::support::{Shape, limited, owner};
use memstock_common::charge::{charge, charge_forced};
use memstock_common::control::{KEEP_LIMIT, Limits, Refusal, Swapped};
use memstock_common::counter::needed_above;
use memstock_common::event::{EVENT_INTERVAL_NS, EventKind, may_send};
use memstock_common::fault::miss;
use memstock_common::huge::MAX_HUGE;
use memstock_common::limit::{rearm, set_limits};
use memstock_common::swap::set_swapped;
use memstock_common::{Charge, Event, NO_INDEX, NO_LIMIT, Over, Resource, Word, World as _};

#[test]
fn swap_counts_with_memory_and_swap_of_all_levels() {
    let world = pair();
    let memsw = |index| read(&world.counter(index).memsw.usage);
    let cpu = world.cpu(0);
    assert_eq!(set_swapped(&cpu, 1, 7), Ok(0));
    assert_eq!(set_swapped(&cpu, 0, 2), Ok(0));
    assert_eq!([memsw(0), memsw(1)], [9, 7]);
    assert_eq!(set_swapped(&cpu, 1, 3), Ok(0));
    assert_eq!([memsw(0), memsw(1)], [5, 3]);
    assert_eq!(read(&world.counter(0).memory.usage), 0, "it is no memory");
    assert_eq!(read(&world.counter(1).memsw.watermark), 7);
    assert_eq!([set_swapped(&cpu, 1, 0), set_swapped(&cpu, 0, 0)], [Ok(0), Ok(0)]);
    assert_eq!([memsw(0), memsw(1)], [0, 0]);
    assert_eq!(set_swapped(&cpu, 2, 1), Err(Refusal::Missing));
    let args = Swapped { index: 1, nr_pages: NO_LIMIT };
    assert_eq!(Swapped::from_args(|n| args.to_args()[n]), args);
}

#[test]
fn limits_are_set_together_or_not_at_all() {
    let world = pair();
    let cpu = world.cpu(0);
    let limits = || {
        let counter = world.counter(1);
        (read(&counter.memory_limit), read(&counter.memsw_limit))
    };
    let set = |memory, memsw| set_limits(&cpu, Limits { index: 1, memory, memsw, force: 0 });
    charge_forced(&cpu, 1, 8);
    set_swapped(&cpu, 1, 2).unwrap();
    assert_eq!(set(9, 12), Ok(0));
    assert_eq!(set(8, 9), Err(Refusal::Busy), "10 pages of memory and swap");
    assert_eq!(set(11, 10), Err(Refusal::Order));
    assert_eq!(set(13, KEEP_LIMIT), Err(Refusal::Order));
    assert_eq!(set(7, NO_LIMIT), Err(Refusal::Busy));
    assert_eq!(set(10, 9), Err(Refusal::Order));
    assert_eq!(limits(), (9, 12));
    assert_eq!(set(KEEP_LIMIT, 10), Ok(0));
    assert_eq!(set(8, KEEP_LIMIT), Ok(0));
    assert_eq!(limits(), (8, 10));
    assert_eq!(set(NO_LIMIT, NO_LIMIT), Ok(0));
    assert_eq!(limits(), (NO_LIMIT, NO_LIMIT));
    Word::store(world.cpu(0).setting(), 1);
    assert_eq!(set(NO_LIMIT, NO_LIMIT), Err(Refusal::Setting));
}

#[test]
fn a_forced_limit_may_be_below_the_usage_and_be_raised_there() {
    let world = pair();
    let cpu = world.cpu(0);
    let force = |index, memory| set_limits(&cpu, Limits { index, memory, memsw: 7, force: 1 });
    charge_forced(&cpu, 1, 8);
    assert_eq!(world.set_limit(1, Resource::Memory, 7), Err(Refusal::Busy));
    assert_eq!(force(1, 6), Ok(0));
    let counter = world.counter(1);
    assert_eq!([read(&counter.memory_limit), read(&counter.memsw_limit)], [6, 7]);
    assert_eq!(world.set_limit(1, Resource::Memory, 7), Ok(0));
    assert_eq!(force(1, 8), Err(Refusal::Order));
    assert_eq!(force(2, 7), Err(Refusal::Missing));
}

/// A parent and a child; the child has a limit of 600 pages.
fn pair_with_limit() -> Plain {
    let world = Plain::new(Shape { batch: 8, chunks: 8, ..Shape::default() });
    world.add(0, NO_INDEX);
    world.register(limited(1, 0, 600)).expect("a free counter");
    world
}

fn hits(world: &Plain) -> usize {
    let is_hit = |event: &Event| event.kind == EventKind::LimitHit as u32;
    world.advance(1_000_000_000);
    world.events().iter().filter(|event| is_hit(event)).count()
}

/// The first page of the huge page `n`.
fn huge_page(n: u64) -> u64 {
    512 * (2 + n)
}

#[test]
fn a_huge_page_that_does_not_fit_is_as_one_small_page() {
    let world = pair_with_limit();
    for pfn in 0..104 {
        world.alloc(0, Some(1), pfn, 0);
    }
    world.alloc(0, Some(1), huge_page(0), 9);
    let counter = world.counter(1);
    assert_eq!((world.usage(1), read(&counter.huge)), (616, 511));
    assert_eq!(read(&world.counter(0).huge), 0, "it has no limit");
    for pfn in 104..599 {
        world.alloc(0, Some(1), pfn, 0);
    }
    assert_eq!((hits(&world), world.usage(1)), (0, 600 + 511));
    assert_eq!(needed_above(world.usage(1), 0, 600, read(&counter.huge)), 0);
    world.alloc(0, Some(1), 599, 0);
    assert_eq!(hits(&world), 1);
    assert_eq!(needed_above(world.usage(1), 0, 600, read(&counter.huge)), 1);
    // Once it is freed, it is as if it had never existed.
    world.free(0, huge_page(0), 9);
    world.drain(0, NO_INDEX);
    assert_eq!(world.usage(1), 600);
    world.free(0, 599, 0);
    world.alloc(0, Some(1), 599, 0);
    assert_eq!((hits(&world), read(&counter.huge)), (0, 0));
    world.alloc(0, Some(1), 600, 0);
    assert_eq!(hits(&world), 1);
}

#[test]
fn a_huge_page_is_no_excuse_where_no_page_fits() {
    let world = pair_with_limit();
    for pfn in 0..600 {
        world.alloc(0, Some(1), pfn, 0);
    }
    world.alloc(0, Some(1), huge_page(0), 9);
    assert_eq!((hits(&world), read(&world.counter(1).huge)), (1, 0));
    assert_eq!(needed_above(world.usage(1), 0, 600, 0), 512);
}

#[test]
fn huge_pages_are_above_a_limit_up_to_a_bound() {
    let world = pair_with_limit();
    let fitting = 1 + MAX_HUGE.div_ceil(511);
    // One more still gets in, but adds nothing to the allowance; the next finds no room.
    for n in 0..fitting + 1 {
        assert_eq!(hits(&world), 0, "{n}");
        world.alloc(0, Some(1), huge_page(n), 9);
    }
    assert_eq!(hits(&world), 0);
    world.alloc(0, Some(1), huge_page(fitting + 1), 9);
    assert_eq!(hits(&world), 1);
    assert!(world.usage(1) < 600 + MAX_HUGE + 3 * 512, "{}", world.usage(1));
    world.alloc(0, Some(1), 0, 0);
    assert_eq!(hits(&world), 1);
}

#[test]
fn rearming_has_the_next_event_sent() {
    let world = pair();
    let cpu = world.cpu(0);
    let counter = world.counter(1);
    Word::store(&counter.near_at, 5);
    Word::store(&counter.hit_at, 6);
    assert_eq!(rearm(&cpu, 1), Ok(0));
    assert_eq!([read(&counter.near_at), read(&counter.hit_at)], [0, 0]);
    assert_eq!(rearm(&cpu, 2), Err(Refusal::Missing));
}

/// Tasks at a limit are throttled only after user space has been notified; the one that sends the event is not.
#[test]
fn the_first_at_a_limit_does_not_wait() {
    let world = pair_with_limit();
    let cpu = world.cpu(0);
    charge_forced(&cpu, 1, 600);
    let over = Over { ancestor: 1, resource: Resource::Memory };
    assert_eq!(charge(&cpu, 1, 1, 1), (Charge::Forced(over), 0));
    assert_eq!(charge(&cpu, 1, 1, 1), (Charge::Forced(over), Over::to_bits(Err(over))));
    assert_eq!(world.usage(1), 602);
}

/// As long as user space acts on limits, and for what is needed: the longer, the more pages are above the limit.
#[test]
fn who_goes_on_at_a_limit_is_held_up() {
    // Of the second fault above a limit of 0: the first one is news.
    let held_up = |forced: u64, file: u64, lease_until: u64, may_wait: bool| {
        let world = Plain::new(Shape { look_ns: 30, lease_until, ..Shape::default() });
        world.register(limited(0, NO_INDEX, 0)).expect("a free counter");
        let (cpu, slot) = (world.cpu(0), world.slot(0, 0));
        charge_forced(&cpu, 0, forced);
        Word::store(&world.counter(0).file, file);
        miss(&cpu, slot, owner(0), may_wait);
        let begun = cpu.now();
        miss(&cpu, slot, owner(0), may_wait);
        cpu.now() - begun
    };
    const LATER: u64 = 1 << 40;
    const LOOKS: u64 = 300;
    for (forced, pages) in [(0, 2), (5, 7), (12, 14), (100, 14)] {
        let held = held_up(forced, 0, LATER, true);
        let ns = 333 * pages * pages * pages;
        assert!((ns..ns + LOOKS).contains(&held), "{held} ns with {forced} pages before");
    }
    assert!(held_up(5, 3, LATER, true) < 333 * 5 * 5 * 5, "page cache does not count");
    assert!(held_up(5, 7, LATER, true) < LOOKS, "nothing is needed above the limit");
    assert!(held_up(5, 0, 0, true) < LOOKS, "nobody acts on limits");
    assert!(held_up(5, 0, LATER, false) < LOOKS, "it has a lock that others wait for");
}

/// Of two CPUs, the one that read its clock first may be the last to send.
#[test]
fn an_event_is_not_sent_again_by_an_older_clock() {
    let sent = AtomicU64::new(2 * EVENT_INTERVAL_NS);
    assert!(!may_send(&sent, 2 * EVENT_INTERVAL_NS - 1, EVENT_INTERVAL_NS));
    assert!(may_send(&sent, 3 * EVENT_INTERVAL_NS, EVENT_INTERVAL_NS));
    assert_eq!(sent.load(SeqCst), 3 * EVENT_INTERVAL_NS);
}
