//! Draining: giving stocked pages back to the shared counters, from any CPU.

use crate::charge::{is_in_subtree, uncharge_owner};
use crate::{Machine, NO_INDEX, Stock, StockWord, Word};

/// The patch's `drain_stock`, for a stock of any CPU: returns the pages given back.
///
/// Only a stock cached for the subtree of the counter `subtree` is touched ([`NO_INDEX`]: every
/// stock). Wait-free: one swap takes the stock and says whose it was. Should the CPU have cached
/// another cgroup between look and swap, that cgroup's pages go back to that cgroup, and the
/// stock that was asked for is gone as well.
#[inline(always)]
pub fn drain_stock<M: Machine>(machine: &M, stock: &Stock<M::Word>, subtree: u32) -> u32 {
    let seen = StockWord(stock.word.load());
    if seen.charged() == 0 {
        return 0;
    }
    if subtree != NO_INDEX {
        let Some(index) = machine.tracked(seen.owner()) else {
            return 0;
        };
        if !is_in_subtree(machine, index, subtree) {
            return 0;
        }
    }
    let taken = stock.take();
    if taken.charged() > 0 {
        stock.drains.fetch_add(1);
        uncharge_owner(machine, taken.owner(), taken.charged());
    }
    taken.charged()
}
