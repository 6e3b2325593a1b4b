//! The slots of a CPU's stock: which one serves a cgroup, and what it gives up for that. A policy other than direct
//! mapping (`docs/adr/0002-direct-mapped-slots.md`) is written here; what races with it meanwhile, and is displaced,
//! [`Stock::refill`] gives back.
//!
//! Between two misses a slot serves one cgroup only. A hit relies on that: it looks at one word, and the faults that it
//! counts are credited at the next miss.

use crate::{Machine, Stock, StockWord, Word};

/// The largest number of slots per CPU.
pub const MAX_SLOTS: u32 = 64;

/// The slot that serves `owner`: direct-mapped, so one look-up decides.
#[inline(always)]
pub const fn slot_of(owner: u32, slots: u32) -> u32 {
    // The verifier knows the slots and drops one way. A remainder it knows nothing of, a mask of 0 it does.
    let mask = slots.wrapping_sub(1);
    if slots & mask == 0 {
        return owner & mask;
    }
    match owner.checked_rem(slots) {
        Some(slot) => slot,
        None => 0,
    }
}

/// This CPU's slot for `owner`; none only when the map entry is missing.
#[inline(always)]
pub fn stock_for<M: Machine>(machine: &M, owner: u32) -> Option<&Stock<M::Word>> {
    machine.stock(slot_of(owner, machine.slots()))
}

/// Takes what the slot holds for another cgroup than `owner`, which is about to be served by it: the caller drains it.
#[inline(always)]
pub(crate) fn evict<W: Word>(stock: &Stock<W>, owner: u32) -> StockWord {
    let cached = StockWord(stock.word.load());
    // An empty one as well: faults served by pages freed into it would be credited to `owner`, wrongly.
    if cached.owner() != owner && cached != StockWord::EMPTY {
        return stock.take();
    }
    StockWord::EMPTY
}
