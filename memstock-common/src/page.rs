//! Pages: who owns each one, from its allocation to its free. Our `page_cgroup`.
//!
//! The page-owner map has one [`Entry`] for each page frame. Allocation and free of a page never run at the same time,
//! so an entry has one writer among the probes. Only requests from user space (adoption, repair) race with them, which
//! is why every change is one atomic operation.

use crate::collapse::{COLLAPSE_ORDER, collapse_began};
use crate::fault::{Obtained, obtain, restock};
use crate::file::FILE;
use crate::slots::stock_for;
use crate::stock::Pending;
use crate::uncharge::uncharge_pages;
use crate::world::Step;
use crate::{CgroupCpu, Loss, Machine, NOBODY, Stock, Word, index_of};

/// Pages of a [`Chunk`]: the largest block of the buddy allocator (`MAX_PAGE_ORDER` 10) fits into one.
pub const CHUNK_PAGES: u32 = 1024;
/// log2 of [`CHUNK_PAGES`].
pub const CHUNK_ORDER: u32 = CHUNK_PAGES.trailing_zeros();
/// Set in an entry by user space, and in that of a huge page that may become part of another task's memory
/// (`collapse`). The next allocation or free of the page clears it, so while it is set, the page has been neither
/// allocated nor freed.
pub const UNCONFIRMED: u32 = 1 << 31;
/// Set in the entry of a page that has no reference count of its own, so that a count of 0 does not mean that it is
/// free: all but the first page of an allocation without `__GFP_COMP`. The next allocation or free clears it.
pub const UNCOUNTED: u32 = 1 << 29;
/// Runs of pages with the same former owner that one call handles in a block.
const MAX_RUNS: u32 = 3;
/// Pages of a block handled in one step. A step costs a call.
const STRIDE: u32 = 8;

/// A 32-bit entry of the page-owner map, with the atomic operations that BPF has.
pub trait Entry {
    /// Reads the entry.
    fn load(&self) -> u32;
    /// Replaces the entry and returns the previous value.
    fn swap(&self, value: u32) -> u32;
    /// Replaces `current` by `new`; true if `current` was there.
    fn replace(&self, current: u32, new: u32) -> bool;
}

#[cfg(not(target_arch = "bpf"))]
impl Entry for core::sync::atomic::AtomicU32 {
    fn load(&self) -> u32 {
        self.load(core::sync::atomic::Ordering::SeqCst)
    }
    fn swap(&self, value: u32) -> u32 {
        self.swap(value, core::sync::atomic::Ordering::SeqCst)
    }
    fn replace(&self, current: u32, new: u32) -> bool {
        use core::sync::atomic::Ordering::SeqCst;
        self.compare_exchange(current, new, SeqCst, SeqCst).is_ok()
    }
}

/// The owners of [`CHUNK_PAGES`] consecutive page frames: the value type of the map `OWNERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Chunk<E> {
    /// By page frame number modulo [`CHUNK_PAGES`]: an owner, possibly with the bits [`UNCONFIRMED`], [`FILE`] and
    /// [`UNCOUNTED`].
    pub owners: [E; CHUNK_PAGES as usize],
}

impl<E> Chunk<E> {
    /// The entry of a page frame of this chunk.
    #[inline(always)]
    pub fn entry(&self, pfn: u64) -> &E {
        &self.owners[(pfn % CHUNK_PAGES as u64) as usize]
    }
}

/// The owner in an entry.
#[inline(always)]
pub const fn owner_in(entry: u32) -> u32 {
    entry & !(UNCONFIRMED | FILE | UNCOUNTED)
}

/// A block of `1 << order` pages was allocated: if the kernel charges such allocations (`is_charged`), charges it to
/// the owner that `ask` returns together with this CPU's slot for that owner; and repairs what a lost free left behind.
/// `is_compound` says that the pages form one compound page (`__GFP_COMP`).
#[inline(always)]
pub fn allocated<'a, M: Machine>(
    machine: &M,
    pfn: u64,
    order: u32,
    is_charged: bool,
    is_compound: bool,
    ask: impl FnOnce() -> (u32, Option<&'a Stock<M::Word>>),
) where
    M::Word: 'a,
{
    let Some(chunk) = chunk_of(machine, pfn, order) else {
        return;
    };
    let (mut owner, stock) = if is_charged { ask() } else { (NOBODY, None) };
    let share = if owner == NOBODY { None } else { machine.cgroup_cpu(index_of(owner)) };
    // A page with an owner entry must be charged.
    if owner != NOBODY && share.is_none() {
        machine.lose(Loss::CountersMissing, 1);
        owner = NOBODY;
    }
    let nr_pages = if order == 0 {
        let entry = chunk.entry(pfn);
        if owner == NOBODY && entry.load() == NOBODY {
            return;
        }
        if uncharge_entry(machine, entry.swap(owner)) {
            machine.lose(Loss::Healed, 1);
        }
        1
    } else {
        let new = if is_compound || owner == NOBODY { owner } else { owner | UNCOUNTED };
        let Replaced { owned, left } = machine.replace_block(pfn, order, new);
        if new != owner {
            chunk.entry(pfn).replace(new, owner);
        }
        if owned > 0 {
            machine.lose(Loss::Healed, owned as u64);
        }
        (1 << order) - left
    };
    if let Some(share) = share {
        charge_allocated(machine, stock, share, (owner, nr_pages));
    } else if is_charged && order == COLLAPSE_ORDER && machine.tracks_collapses() {
        collapse_began(machine, chunk.entry(pfn), pfn);
    }
}

/// Charges pages that were allocated for `owner`, and counts them in `share`, this CPU's statistics. By plain stores
/// unless programs are preempted: only [`claim`](crate::file::claim) also writes these words, and does not interrupt.
#[inline(always)]
pub fn charge_allocated<W: Word, M: Machine<Word = W>>(
    machine: &M,
    stock: Option<&Stock<W>>,
    share: &CgroupCpu<W>,
    (owner, nr_pages): (u32, u32),
) {
    let missed = commit(machine, stock, owner, nr_pages);
    let from_stock = nr_pages - missed;
    let add = |word: &W, nr_pages: u32| word.add(nr_pages.into(), machine.is_preempted());
    add(&share.from_stock, from_stock);
    add(&share.missed, missed);
    if let Some(stock) = stock {
        add(&stock.from_stock, from_stock);
        add(&stock.missed, missed);
    }
}

/// Uncharges the page of an entry that was taken out of the map; returns whether it had an owner.
#[inline(always)]
pub(crate) fn uncharge_entry<M: Machine>(machine: &M, entry: u32) -> bool {
    let owner = owner_in(entry);
    if owner == NOBODY {
        return false;
    }
    uncharge_run(machine, owner, 1, u32::from(entry & FILE != 0));
    true
}

/// Uncharges pages of which `nr_file` were page cache. In this order, or they would seem needed for a moment.
#[inline(always)]
pub fn uncharge_run<M: Machine>(machine: &M, owner: u32, nr_pages: u32, nr_file: u32) {
    uncharge_pages(machine, owner, nr_pages);
    if nr_file > 0 {
        machine.file_changed(owner, -(nr_file as i32));
    }
}

/// A block of `1 << order` pages is being freed: uncharges those that have an owner. Returns how many had one.
#[inline(always)]
pub fn freed<M: Machine>(machine: &M, pfn: u64, order: u32) -> u32 {
    let Some(chunk) = chunk_of(machine, pfn, order) else {
        return 0;
    };
    if order > 0 {
        return machine.replace_block(pfn, order, NOBODY).owned;
    }
    let entry = chunk.entry(pfn);
    if entry.load() == NOBODY {
        return 0;
    }
    u32::from(uncharge_entry(machine, entry.swap(NOBODY)))
}

/// Free pages leave a CPU's list for the buddy allocator: if one still has an owner, its free was missed.
#[inline(always)]
pub fn drained<M: Machine>(machine: &M, pfn: u64, order: u32) {
    let healed = freed(machine, pfn, order);
    if healed > 0 {
        machine.lose(Loss::Healed, healed as u64);
    }
}

#[inline(always)]
fn chunk_of<M: Machine>(machine: &M, pfn: u64, order: u32) -> Option<&Chunk<M::Entry>> {
    let chunk = machine.chunk(pfn);
    if chunk.is_none() || order > CHUNK_ORDER {
        machine.lose(Loss::PagesOutside, 1 << (order & 31));
        return None;
    }
    chunk
}

/// Commits the pending page, or takes from the stock, or charges; returns how many pages were charged on the shared
/// counters.
#[inline(always)]
pub(crate) fn commit<M: Machine>(
    machine: &M,
    stock: Option<&Stock<M::Word>>,
    owner: u32,
    nr_pages: u32,
) -> u32 {
    let taken = stock.map(|stock| stock.commit(owner, nr_pages)).unwrap_or_default();
    if taken.nr_pages == nr_pages {
        return taken.missed;
    }
    let missed = machine.charge_rest(owner, nr_pages - taken.nr_pages) + taken.missed;
    // The verifier knows nothing of what a function returns.
    if missed < nr_pages { missed } else { nr_pages }
}

/// Charges pages that were allocated for `owner` and that the stock did not have, and a batch if that is more; returns
/// how many of them were charged on the shared counters.
#[inline(always)]
pub fn charge_rest<M: Machine>(machine: &M, owner: u32, missing: u32) -> u32 {
    let Some(stock) = stock_for(machine, owner) else {
        machine.charge_forced(index_of(owner), missing);
        return missing;
    };
    let Obtained { nr_pages, missed, .. } = obtain(machine, stock, owner, missing);
    if nr_pages > missing {
        restock(machine, stock, owner, Pending::default(), nr_pages - missing);
    }
    missed
}

/// The result of [`replace_block`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Pages that had an owner.
    pub owned: u32,
    /// Pages that were not changed.
    pub left: u32,
}

impl Replaced {
    /// Packs it into one register.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        (self.left as u64) << 32 | self.owned as u64
    }

    /// Unpacks it.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self { owned: bits as u32, left: (bits >> 32) as u32 }
    }
}

/// Gives every page of a block of `1 << order` pages, which is in one chunk, the owner `new` and uncharges the former
/// owners.
///
/// The pages of a block may have different owners, or none: it may have been split or merged, and allocations and frees
/// missed. At most three runs of pages with one owner are uncharged, and the first page of a fourth; later pages keep
/// their owners and are reported in `left`.
#[inline(always)]
pub fn replace_block<M: Machine>(machine: &M, pfn: u64, order: u32, new: u32) -> Replaced {
    let Some(chunk) = machine.chunk(pfn) else {
        return Replaced::default();
    };
    let end = 1 << order;
    let mut walk =
        Walk { chunk, pfn, end, new, at: 0, owner: NOBODY, nr_pages: 0, nr_file: 0, next: NOBODY };
    let (mut owned, mut run) = (0, 0);
    while run < MAX_RUNS {
        walk.owner = owner_in(walk.next);
        walk.nr_pages = machine.opaque_zero() + u32::from(walk.next != NOBODY);
        walk.nr_file = machine.opaque_zero() + u32::from(walk.next & FILE != 0);
        walk.next = NOBODY;
        machine.repeat(CHUNK_PAGES / STRIDE, &mut walk);
        if walk.owner != NOBODY {
            machine.uncharge_run(walk.owner, walk.nr_pages, walk.nr_file);
            owned += walk.nr_pages;
        }
        if walk.next == NOBODY {
            return Replaced { owned, left: 0 };
        }
        run += 1;
    }
    machine.uncharge_run(owner_in(walk.next), 1, u32::from(walk.next & FILE != 0));
    let left = end.wrapping_sub(walk.at);
    if left > 0 {
        machine.lose(Loss::BlocksMixed, left as u64);
    }
    Replaced { owned: owned + 1, left }
}

/// The walk over the pages of one block, from one change of owner to the next.
struct Walk<'a, E> {
    chunk: &'a Chunk<E>,
    pfn: u64,
    end: u32,
    new: u32,
    /// The next page.
    at: u32,
    /// The owner of this run of pages, and how many they are.
    owner: u32,
    nr_pages: u32,
    /// Pages of the run that were page cache.
    nr_file: u32,
    /// The entry of the page after the run, if it has another owner.
    next: u32,
}

impl<E: Entry> Step for Walk<'_, E> {
    /// Advances by [`STRIDE`] pages, to the end of the block, or to a change of owner.
    #[inline(always)]
    fn step(&mut self) -> bool {
        let mut n = 0;
        while n < STRIDE {
            if self.at >= self.end {
                return false;
            }
            let entry = self.chunk.entry(self.pfn + self.at as u64);
            self.at += 1;
            n += 1;
            // One branch per page, not two: the verifier follows both ways of each.
            if self.new | entry.load() == NOBODY {
                continue;
            }
            let old = entry.swap(self.new);
            let owner = owner_in(old);
            if owner == NOBODY {
                continue;
            }
            if (self.owner != NOBODY) & (owner != self.owner) {
                self.next = old & !UNCONFIRMED;
                return false;
            }
            self.owner = owner;
            self.nr_pages += 1;
            self.nr_file += u32::from(old & FILE != 0);
        }
        true
    }
}
