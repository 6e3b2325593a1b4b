//! One page fault: consume from the stock, or miss, charge a batch and refill.

use crate::charge::{Over, charge};
use crate::limit::throttle;
use crate::slots::evict;
use crate::stock::Pending;
use crate::uncharge::{drain_taken, uncharge_counted};
use crate::world::Step;
use crate::{Charge, Loss, MAX_DEPTH, Machine, NOBODY, Stock, StockWord, Word, index_of, owner_of};

/// What the fast path found out.
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

/// The owner that the tasks of a cgroup are charged to: the cgroup itself if it is tracked, else its
/// nearest tracked ancestor, else [`NOBODY`]. Cgroups are given by [`key_of`](crate::key_of) their ids.
///
/// `ancestor(level)` is the ancestor of `own` at that level below the root, which is level 0 and
/// never tracked; 0 below `own`. Of levels deeper than four times
/// [`MAX_DEPTH`] none is looked at.
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

/// The slow path of a fault of a tracked cgroup: has a page pending, and a batch around it stocked. Who goes on at a limit
/// is held up for a while if it `may_wait`: it holds no lock of the kernel's, for which others would wait as well.
#[inline(always)]
pub fn miss<M: Machine>(machine: &M, stock: &Stock<M::Word>, owner: u32, may_wait: bool) {
    let Obtained { nr_pages, missed, refused } = obtain(machine, stock, owner, 1);
    if nr_pages > 0 {
        // After the faults of whom the slot served before were credited.
        stock.faults.fetch_add(1);
        restock(machine, stock, owner, Pending { nr_pages: 1, missed: missed > 0 }, nr_pages);
    }
    if may_wait && let Err(over) = Over::from_bits(refused) {
        throttle(machine, over);
    }
}

/// Counts a fault that missed and is not served: what it goes on to allocate is charged then.
#[inline(always)]
pub fn count_unserved<M: Machine>(machine: &M, stock: &Stock<M::Word>, owner: u32) {
    credit_faults(machine, stock, owner);
    stock.faults.fetch_add(1);
}

/// What was got for an allocation, or a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Obtained {
    /// Pages charged, those to stock included.
    pub nr_pages: u32,
    /// Those of the pages asked for that were charged on the shared counters.
    pub missed: u32,
    /// The limit at which it is time to wait: see [`charge`].
    pub refused: u64,
}

/// Gets at least `nr_pages` charged for `owner`, and a batch if that is more.
///
/// None only when a map entry is missing. Another cgroup's stock is drained first: it may be what makes
/// room under a common ancestor. Freed pages of the owner that are on their way to the shared counters
/// are used before these are touched.
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

/// Puts charged pages that are left over into the stock, `pending` of them for the fault.
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

/// Credits the faults since the last miss to the cgroup that had them, and the next ones to `owner`.
///
/// Between two misses a slot serves one cgroup only, which is what makes a hit free of any
/// per-cgroup work. An allocation in an interrupt may come in between, for the same task: each fault is
/// credited once all the same. Only if the task is being moved from another CPU at that moment can the
/// two be for different cgroups, and up to a batch of faults be credited to the one for the other.
#[inline(always)]
fn credit_faults<M: Machine>(machine: &M, stock: &Stock<M::Word>, owner: u32) {
    let credited = stock.credited.load();
    let faults = stock.faults.load();
    // Read after what is credited: an interrupting probe that changes it credits as well.
    let creditor = stock.creditor.load();
    let uncredited = faults.wrapping_sub(credited);
    if uncredited > 0 && stock.credited.replace(credited, faults) {
        // Those of a cgroup that is gone (no creditor) are dropped with it.
        if let Some(share) = machine.cgroup_cpu(index_of(creditor as u32)) {
            share.faults.fetch_add(uncredited);
        }
    }
    if stock.creditor.load() as u32 != owner {
        stock.creditor.store(owner.into());
    }
}
