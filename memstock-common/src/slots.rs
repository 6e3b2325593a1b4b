//! The slots of a CPU's stock: which one serves a cgroup, and what it gives up for that. A policy other than direct
//! mapping (`docs/adr/0002-direct-mapped-slots.md`) goes here; [`Stock::refill`] returns whatever a race displaces.
//!
//! Between two misses a slot serves one cgroup only. A hit relies on that: it reads one word, and the faults that it
//! counts are credited at the next miss.

use crate::{Machine, Stock, StockWord, Word};

/// The largest number of slots per CPU.
pub const MAX_SLOTS: u32 = 64;

/// The slot that serves `owner`: direct-mapped, so one look-up is enough.
#[inline(always)]
pub const fn slot_of(owner: u32, slots: u32) -> u32 {
    // The verifier knows `slots` and drops one branch. It knows nothing about a remainder, but it knows a mask of 0.
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

/// Takes what the slot holds for a cgroup other than `owner`, which the slot is about to serve; the caller drains it.
#[inline(always)]
pub(crate) fn evict<W: Word>(stock: &Stock<W>, owner: u32) -> StockWord {
    let cached = StockWord(stock.word.load());
    // Take it when it is empty, too: faults served by pages freed into it would be credited to `owner`, wrongly.
    if cached.owner() != owner && cached != StockWord::EMPTY {
        return stock.take();
    }
    StockWord::EMPTY
}
