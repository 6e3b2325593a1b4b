//! One page fault: consume from the stock, or miss, charge a batch and refill.

use crate::charge::{charge, uncharge, uncharge_owner};
use crate::stock::{StockWord, credit_for, creditor, untracked_mark};
use crate::{Charge, Loss, Machine, Stock, Word};

/// What the fast path found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// A stocked page was taken. Done.
    Hit,
    /// The cgroup is known not to be tracked. Done.
    Untracked,
    /// Neither is known: [`miss`] decides.
    Miss,
}

/// The fast path. Writes this CPU's slot and nothing else.
#[inline(always)]
pub fn consume_or_miss<W: Word>(stock: &Stock<W>, owner: u32, generation: u64) -> Consumed {
    if stock.consume(owner, 1) {
        stock.hits.bump(1);
        return Consumed::Hit;
    }
    if stock.untracked.load() == untracked_mark(owner, generation) {
        return Consumed::Untracked;
    }
    Consumed::Miss
}

/// The cgroup that a fault of the cgroup `own` is charged to: `own` if it is tracked, else its nearest
/// tracked ancestor, else `own`, which [`miss`] then finds to be untracked.
///
/// `ancestor(level)` is the ancestor of `own` at that level below the root, which is level 0 and
/// never tracked; 0 below `own`. Of levels deeper than four times
/// [`MAX_DEPTH`](crate::MAX_DEPTH) none is looked at.
#[inline(always)]
pub fn nearest_tracked<M: Machine>(
    machine: &M,
    stock: &Stock<M::Word>,
    generation: u64,
    own: u32,
    ancestor: impl Fn(u32) -> u32,
) -> u32 {
    if stock.untracked.load() == untracked_mark(own, generation) || machine.tracked(own).is_some() {
        return own;
    }
    let (mut nearest, mut level) = (own, 1);
    while level < 4 * machine.max_depth() {
        let id = ancestor(level);
        if id == 0 {
            break;
        }
        if machine.tracked(id).is_some() {
            nearest = id;
        }
        level += 1;
    }
    nearest
}

/// The slow path: charges the fault of a tracked cgroup on the shared counters.
///
/// A fault of an untracked cgroup leaves a mark, so that its next one stays on the fast path. The mark
/// is of the `generation` in which `owner` was found: what became tracked since then, the cgroup or
/// an ancestor of it, makes it stale.
#[inline(always)]
pub fn miss<M: Machine>(machine: &M, stock: &Stock<M::Word>, owner: u32, generation: u64) {
    // Changes nothing, but is a full barrier on a line of this CPU: where plain loads may pass each
    // other, the look-up could precede the caller's reading of the generation, and the mark stick.
    stock.untracked.swap(stock.untracked.load());
    let Some(index) = machine.tracked(owner) else {
        stock.untracked.store(untracked_mark(owner, generation));
        return;
    };
    settle(machine, stock, index);
    let Some(share) = machine.cgroup_cpu(index) else {
        machine.lose(Loss::CountersMissing, 1);
        return;
    };
    stock.misses.bump(1);
    share.misses.bump(1);

    // Another cgroup's pages go back first: they may be what makes room under a common ancestor.
    let cached = StockWord(stock.word.load());
    if cached.owner() != owner && cached.charged() > 0 {
        drain_own(machine, stock, stock.take());
    }

    let batch = machine.batch();
    match charge(machine, index, batch) {
        Charge::Batch => {
            let refill = stock.refill(owner, batch - 1, batch);
            stock.refills.bump(1);
            drain_own(machine, stock, refill.displaced);
            if refill.excess > 0 {
                uncharge(machine, index, refill.excess as u64);
                machine.lose(Loss::RefillsReturned, refill.excess as u64);
            }
        }
        Charge::Single(_) => share.singles.bump(1),
        Charge::Forced(_) => share.forced.bump(1),
    }
}

#[inline(always)]
fn drain_own<M: Machine>(machine: &M, stock: &Stock<M::Word>, taken: StockWord) {
    if taken.charged() > 0 {
        stock.drains.fetch_add(1);
        uncharge_owner(machine, taken.owner(), taken.charged());
    }
}

/// Credits the hits since the last miss to the cgroup that had them, and the next ones to `index`.
///
/// Between two misses a slot serves one cgroup only, which is what makes a hit free of any
/// per-cgroup work.
#[inline(always)]
fn settle<M: Machine>(machine: &M, stock: &Stock<M::Word>, index: u32) {
    let credit = stock.credit.load();
    let hits = stock.hits.load();
    let unsettled = hits.wrapping_sub(stock.settled.load());
    if unsettled > 0 {
        // Hits of a cgroup that is gone (no creditor) are dropped with it.
        if let Some(share) = machine.cgroup_cpu(creditor(credit)) {
            share.hits.bump(unsettled);
        }
        stock.settled.store(hits);
    }
    if creditor(credit) != index {
        stock.credit.store(credit_for(index));
    }
}
