//! Draining: giving stocked pages back to the shared counters, from any CPU.

use crate::charge::is_in_subtree;
use crate::uncharge::drain_taken;
use crate::{Machine, NO_INDEX, Stock, StockWord, Word, index_of};

/// The patch's `drain_stock`, for a stock of any CPU, and its uncharge batch: returns the pages given
/// back.
///
/// Only what is cached for the subtree of the counter `subtree` is touched ([`NO_INDEX`]: everything).
/// Wait-free: one swap takes the stock and says whose it was. Should the CPU have cached
/// another cgroup between look and swap, that cgroup's pages go back to that cgroup, and the
/// stock that was asked for is gone as well.
#[inline(always)]
pub fn drain_stock<M: Machine>(machine: &M, stock: &Stock<M::Word>, subtree: u32) -> u32 {
    let mut drained = 0;
    if is_due(machine, StockWord(stock.word.load()), subtree) {
        drained += drain_taken(machine, stock, stock.take());
    }
    if is_due(machine, StockWord(stock.uncharge_batch.load()), subtree) {
        drained += drain_taken(machine, stock, stock.take_uncharge_batch());
    }
    drained
}

#[inline(always)]
fn is_due<M: Machine>(machine: &M, seen: StockWord, subtree: u32) -> bool {
    seen.charged() > 0
        && (subtree == NO_INDEX || is_in_subtree(machine, index_of(seen.owner()), subtree))
}
