//! Uncharging freed pages: back into the local stock, or else batched on the way to the shared counters, as in the
//! patch's sister "memcg: coalescing uncharge" (2009).

use crate::slots::stock_for;
use crate::{Machine, Stock, StockWord, Word, index_of};

/// Takes back `nr_pages` freed pages of `owner`, on the CPU that frees them.
///
/// They go into this CPU's stock while it is cached for the owner and not full, or else into its uncharge batch, which
/// is uncharged in one operation when it is full.
#[inline(always)]
pub fn uncharge_pages<M: Machine>(machine: &M, owner: u32, nr_pages: u32) {
    let rest = match stock_for(machine, owner) {
        Some(stock) => stock.put_back(owner, nr_pages, machine.stock_pages()),
        None => nr_pages,
    };
    if rest > 0 {
        machine.uncharge_rest(owner, rest);
    }
}

/// Uncharges freed pages of `owner` that found no room in the stock.
#[inline(always)]
pub fn uncharge_rest<M: Machine>(machine: &M, owner: u32, rest: u32) {
    let Some(stock) = stock_for(machine, owner) else {
        machine.uncharge(index_of(owner), rest);
        return;
    };
    match machine.uncharge_batch() {
        // The batch always stays empty.
        1 => uncharge_counted(machine, stock, owner, rest),
        batch => {
            for word in stock.batch_up(owner, rest, batch) {
                uncharge_counted(machine, stock, word.owner(), word.nr_pages());
            }
        }
    }
}

/// Uncharges on the shared counters, in one operation.
#[inline(always)]
pub(crate) fn uncharge_counted<M: Machine>(
    machine: &M,
    stock: &Stock<M::Word>,
    owner: u32,
    nr_pages: u32,
) {
    if nr_pages > 0 {
        stock.uncharges.fetch_add(1);
        machine.uncharge(index_of(owner), nr_pages);
    }
}

/// Uncharges a taken stock on the shared counters; returns how many pages it had.
#[inline(always)]
pub(crate) fn drain_taken<M: Machine>(
    machine: &M,
    stock: &Stock<M::Word>,
    taken: StockWord,
) -> u32 {
    let nr_pages = taken.charged();
    if nr_pages > 0 {
        stock.drains.fetch_add(1);
        machine.uncharge(index_of(taken.owner()), nr_pages);
    }
    nr_pages
}
