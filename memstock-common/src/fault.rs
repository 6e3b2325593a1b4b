//! One page fault: consume from the stock, or miss, charge a batch and refill.

use crate::charge::{Over, charge};
use crate::limit::throttle;
use crate::slots::evict;
use crate::stock::Pending;
use crate::uncharge::{drain_taken, uncharge_counted};
use crate::world::Step;
use crate::{Charge, Loss, MAX_DEPTH, Machine, NOBODY, Stock, StockWord, Word, index_of, owner_of};

/// The result of the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// A page of this CPU's stock is pending for the fault. Done.
    Hit,
    /// The fault is not charged to anybody. Done.
    Untracked,
    /// Nothing is stocked: [`miss`] charges.
    Miss,
}

/// The fast path. Writes this CPU's slot and nothing else.
#[inline(always)]
pub fn consume_or_miss<W: Word>(stock: &Stock<W>, owner: u32) -> Consumed {
    if owner == NOBODY {
        return Consumed::Untracked;
    }
    if stock.consume(owner) {
        stock.faults.bump(1);
        return Consumed::Hit;
    }
    Consumed::Miss
}

/// The owner that the tasks of a cgroup are charged to: the cgroup itself if it is tracked, else its nearest tracked
/// ancestor, else [`NOBODY`]. Cgroups are identified by [`key_of`](crate::key_of) their ids.
///
/// `ancestor(level)` is the ancestor of `own` at that level below the root, which is level 0 and never tracked; 0 below
/// `own`. Levels deeper than four times [`MAX_DEPTH`] are ignored.
#[inline(always)]
pub fn nearest_tracked<M: Machine>(machine: &M, own: u32, ancestor: impl Fn(u32) -> u32) -> u32 {
    if let Some(index) = machine.tracked(own) {
        return owner_of(index);
    }
    let mut descent = Descent { machine, ancestor, level: 1, nearest: NOBODY };
    machine.repeat(4 * MAX_DEPTH - 1, &mut descent);
    descent.nearest
}

/// The walk from the root down to a cgroup.
struct Descent<'a, M, F> {
    machine: &'a M,
    ancestor: F,
    level: u32,
    nearest: u32,
}

impl<M: Machine, F: Fn(u32) -> u32> Step for Descent<'_, M, F> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        let key = (self.ancestor)(self.level);
        if key == 0 {
            return false;
        }
        if let Some(index) = self.machine.tracked(key) {
            self.nearest = owner_of(index);
        }
        self.level += 1;
        true
    }
}

/// The slow path of a fault of a tracked cgroup: leaves one page pending and stocks the rest of a batch. Above a limit
/// the task is throttled if it `may_wait`, that is, if it holds no kernel lock that others would then wait for.
#[inline(always)]
pub fn miss<M: Machine>(machine: &M, stock: &Stock<M::Word>, owner: u32, may_wait: bool) {
    let Obtained { nr_pages, missed, refused } = obtain(machine, stock, owner, 1);
    if nr_pages > 0 {
        // After the faults of the slot's previous owner were credited.
        stock.faults.fetch_add(1);
        restock(machine, stock, owner, Pending { nr_pages: 1, missed: missed > 0 }, nr_pages);
    }
    if may_wait && let Err(over) = Over::from_bits(refused) {
        throttle(machine, over);
    }
}

/// Counts a fault that missed and is not served: its allocation will be charged instead.
#[inline(always)]
pub fn count_unserved<M: Machine>(machine: &M, stock: &Stock<M::Word>, owner: u32) {
    credit_faults(machine, stock, owner);
    stock.faults.fetch_add(1);
}

/// The pages obtained for an allocation or a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Obtained {
    /// Pages charged, including those to stock.
    pub nr_pages: u32,
    /// Pages of the request that were charged on the shared counters.
    pub missed: u32,
    /// The limit at which to wait: see [`charge`].
    pub refused: u64,
}

/// Charges at least `nr_pages` for `owner`, and a batch if that is more.
///
/// Returns no pages only when a map entry is missing. First drains another cgroup's stock, which may make room under a
/// common ancestor, and uses the owner's freed pages that are on their way to the shared counters.
#[inline(always)]
pub(crate) fn obtain<M: Machine>(
    machine: &M,
    stock: &Stock<M::Word>,
    owner: u32,
    nr_pages: u32,
) -> Obtained {
    credit_faults(machine, stock, owner);
    let Some(share) = machine.cgroup_cpu(index_of(owner)) else {
        machine.lose(Loss::CountersMissing, 1);
        return Obtained::default();
    };
    drain_taken(machine, stock, evict(stock, owner));
    let mut reused = 0;
    let freed = StockWord(stock.uncharge_batch.load());
    if machine.stock_pages() > 0
        && freed.owner() == owner
        && stock.uncharge_batch.replace(freed.0, StockWord::EMPTY.0)
    {
        reused = freed.nr_pages();
        if reused >= nr_pages {
            return Obtained { nr_pages: reused, ..Obtained::default() };
        }
    }
    let needed = nr_pages - reused;
    let batch = if machine.batch() > needed { machine.batch() } else { needed };
    stock.charges.fetch_add(1);
    let (how, refused) = charge(machine, index_of(owner), needed, batch);
    let charged = match how {
        Charge::Batch => batch,
        Charge::Single(_) => {
            share.singles.fetch_add(1);
            needed
        }
        Charge::Forced(_) => {
            share.forced.fetch_add(needed as u64);
            needed
        }
    };
    Obtained { nr_pages: reused + charged, missed: needed, refused }
}

/// Puts the remaining charged pages into the stock, `pending` of them for the fault.
#[inline(always)]
pub(crate) fn restock<M: Machine>(
    machine: &M,
    stock: &Stock<M::Word>,
    owner: u32,
    pending: Pending,
    nr_pages: u32,
) {
    let refill = stock.refill(owner, pending, nr_pages, machine.batch());
    stock.refills.fetch_add(1);
    drain_taken(machine, stock, refill.displaced);
    if refill.excess > 0 {
        uncharge_counted(machine, stock, owner, refill.excess);
        machine.lose(Loss::RefillsReturned, refill.excess as u64);
    }
}

/// Credits the faults since the last miss to the cgroup that had them, and later ones to `owner`.
///
/// Between two misses a slot serves one cgroup only, so a hit needs no per-cgroup work. An allocation in an interrupt
/// may come in between, for the same task; each fault is still credited once. Only if the task is being moved from
/// another CPU at that moment can the two be for different cgroups; up to a batch of faults may then be credited to the
/// wrong one.
#[inline(always)]
fn credit_faults<M: Machine>(machine: &M, stock: &Stock<M::Word>, owner: u32) {
    let credited = stock.credited.load();
    let faults = stock.faults.load();
    // Read after `credited`: an interrupting probe that changes it credits as well.
    let creditor = stock.creditor.load();
    let uncredited = faults.wrapping_sub(credited);
    if uncredited > 0 && stock.credited.replace(credited, faults) {
        // Faults of a removed cgroup (no creditor) are dropped with it.
        if let Some(share) = machine.cgroup_cpu(index_of(creditor as u32)) {
            share.faults.fetch_add(uncredited);
        }
    }
    if stock.creditor.load() as u32 != owner {
        stock.creditor.store(owner.into());
    }
}
