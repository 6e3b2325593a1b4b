//! The per-CPU stock: one packed word of pre-charged pages, the uncharge batch, and their statistics.
//!
//! The word is `owner << 32 | pending << 16 | nr_pages`. Everything that is charged but not yet
//! used sits in this one word, so that a single atomic swap, by any CPU, takes the whole stock
//! together with the knowledge of whose it is. It changes by atomic read-modify-write only.

use crate::file::FileWord;
use crate::{OwnerCache, Word};

/// The value of a stock word, or of an uncharge batch, in which nothing is ever pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockWord(pub u64);

/// One pending page in a stock word.
const PENDING: u64 = 1 << 16;
/// Set in a stock word while the pending page was charged for the fault that left it: that page belongs to this CPU,
/// but did not come from its stock.
const MISSED: u64 = 1 << 31;

impl StockWord {
    /// Nothing stocked, cached for nobody.
    pub const EMPTY: Self = Self(0);

    /// A stock of `nr_pages` for `owner`, and `pending` more that a fault has already consumed.
    #[inline(always)]
    pub const fn new(owner: u32, pending: u32, nr_pages: u32) -> Self {
        Self(((owner as u64) << 32) | (pending as u64 * PENDING) | nr_pages as u64)
    }

    /// The owner it is cached for; [`NOBODY`](crate::NOBODY) when it was never filled, or was drained.
    #[inline(always)]
    pub const fn owner(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Pages that can be consumed.
    #[inline(always)]
    pub const fn nr_pages(self) -> u32 {
        (self.0 & 0xffff) as u32
    }

    /// Pages consumed by a fault that no allocation has taken yet: 0 or 1.
    #[inline(always)]
    pub const fn pending(self) -> u32 {
        (self.0 >> 16 & 0x7fff) as u32
    }

    /// Pending pages that were charged for that fault: 0 or 1.
    #[inline(always)]
    pub const fn missed(self) -> u32 {
        (self.0 >> 31 & 1) as u32
    }

    /// Everything a drain gives back: stocked and pending pages.
    #[inline(always)]
    pub const fn charged(self) -> u32 {
        self.nr_pages() + self.pending()
    }
}

/// One slot of a CPU's stock: the value type of the map `STOCK`. What a hit needs comes first.
///
/// Any CPU may change `word`, `uncharge_batch`, `file` and `drains`; a CPU that unregisters a cgroup also changes
/// `creditor`. The others are written only by programs on the CPU that owns the slot. A field that one program writes
/// gets plain stores, since the kernel never nests a program (the recursion guard of `__bpf_trace_run`); one that
/// several programs write, of which one may interrupt another, gets atomic operations. Only `creditor` is stored
/// plainly by several (see `credit_faults` in [`fault`](crate::fault)), and, where programs are not preempted,
/// `from_stock` and `missed` (see [`charge_allocated`](crate::page::charge_allocated)).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stock<W> {
    /// The stock word.
    pub word: W,
    /// Page faults of tracked cgroups.
    pub faults: W,
    /// The owner of the fault or allocation that the CPU served last; only slot 0's is used.
    pub owner_cache: OwnerCache<W>,
    /// Freed pages on their way to the shared counters, as a [`StockWord`].
    pub uncharge_batch: W,
    /// The part of `faults` already credited to a cgroup in [`CgroupCpu`].
    pub credited: W,
    /// The owner to credit `faults - credited` to.
    pub creditor: W,
    /// Page cache added or removed, on its way to the shared counters, as a [`FileWord`].
    pub file: W,
    /// Pages charged at allocation without a charge on the shared counters.
    pub from_stock: W,
    /// Pages charged at allocation with a charge on the shared counters.
    pub missed: W,
    /// Times charged pages were put into the stock after a miss.
    pub refills: W,
    /// Times stocked pages were given back to the shared counters unused.
    pub drains: W,
    /// Charges on the shared counters.
    pub charges: W,
    /// Uncharges of freed pages on the shared counters.
    pub uncharges: W,
}

const _: () = assert!(size_of::<Stock<u64>>() == 128, "no implicit padding");
const _: () = assert!(core::mem::offset_of!(Stock<u64>, credited) == 56, "what is hot comes first");

/// What one cgroup did on one CPU: the value type of the per-CPU map `CGROUP_CPU`.
///
/// Written on that CPU only; zeroed when the counter is registered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CgroupCpu<W> {
    /// Page faults, credited at each miss of the CPU.
    pub faults: W,
    /// Pages charged at allocation without a charge on the shared counters.
    pub from_stock: W,
    /// Pages charged at allocation with a charge on the shared counters.
    pub missed: W,
    /// Charges for which only the pages needed fitted, not a batch.
    pub singles: W,
    /// Pages charged although a limit was reached.
    pub forced: W,
}

const _: () = assert!(size_of::<CgroupCpu<u64>>() == 40);

/// What the kernel's own memory controller did for the tasks of one cgroup on one CPU: the value type of the per-CPU
/// map `KERNEL_STOCK`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelCharges<W> {
    /// Charges requested from it.
    pub charges: W,
    /// Pages requested by those charges.
    pub nr_pages: W,
    /// Charges on its shared counters, for pages that its stocks did not have.
    pub shared_operations: W,
}

const _: () = assert!(size_of::<KernelCharges<u64>>() == 24);

/// One slot of one of the kernel's own stocks, at the time it was read: the value type of the map `KERNEL_SLOTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelSlot<W> {
    /// Id of the cgroup it is cached for, in the hierarchy of the memory controller; 0 for none.
    pub cgroup_id: W,
    /// The amount left in it: pages, or bytes.
    pub left: W,
}

const _: () = assert!(size_of::<KernelSlot<u64>>() == 16);

/// What an allocation found in the stock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Pages.
    pub nr_pages: u32,
    /// Those charged for the preceding fault: 0 or 1.
    pub missed: u32,
}

/// The page of a refill that is reserved for the fault that missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Pages: 1, or 0 where no fault missed.
    pub nr_pages: u32,
    /// Whether it was charged on the shared counters.
    pub missed: bool,
}

/// What did not fit into the stock at a refill; the caller uncharges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// The stock of another cgroup that was displaced; [`StockWord::EMPTY`] if none was.
    pub displaced: StockWord,
    /// Pages of the refilling cgroup that found no room.
    pub excess: u32,
}

/// Attempts to change a word before a lost race is given up. Only drains and an interrupting probe compete for it.
const TRIES: u32 = 2;

impl<W: Word> Stock<W> {
    /// The patch's `consume_stock`: leaves one page pending for `owner`.
    ///
    /// A page that is already pending, because no allocation took it, is used again. A race with a drain counts as "not
    /// stocked": the pages are gone.
    #[inline(always)]
    pub fn consume(&self, owner: u32) -> bool {
        let seen = StockWord(self.word.load());
        if seen.owner() != owner {
            return false;
        }
        seen.pending() > 0
            || (seen.nr_pages() > 0 && self.word.replace(seen.0, seen.0 + PENDING - 1))
    }

    /// Takes up to `nr_pages` for an allocation of `owner`, the pending page first.
    #[inline(always)]
    pub fn commit(&self, owner: u32, nr_pages: u32) -> Taken {
        let seen = StockWord(self.word.load());
        if seen.owner() != owner {
            return Taken::default();
        }
        let pending = least(seen.pending(), nr_pages);
        let stocked = least(seen.nr_pages(), nr_pages - pending);
        let missed = if pending > 0 { seen.missed() } else { 0 };
        let rest = seen.0 - pending as u64 * PENDING - stocked as u64 - missed as u64 * MISSED;
        if rest != seen.0 && self.word.replace(seen.0, rest) {
            return Taken { nr_pages: pending + stocked, missed };
        }
        Taken::default()
    }

    /// The patch's `refill_stock`: stocks `nr_pages` charged pages for `owner`, `pending` of them for the fault that
    /// missed; `missed` says whether those were charged on the shared counters.
    ///
    /// The stock never holds more than `batch` pages, pending ones included.
    #[inline(always)]
    pub fn refill(
        &self,
        owner: u32,
        Pending { nr_pages: pending, missed }: Pending,
        nr_pages: u32,
        batch: u32,
    ) -> Refill {
        let nr_pages = nr_pages - pending;
        for _ in 0..TRIES {
            let seen = StockWord(self.word.load());
            let (displaced, kept) = if seen.owner() == owner {
                (StockWord::EMPTY, seen)
            } else {
                (seen, StockWord::new(owner, 0, 0))
            };
            let room = batch.saturating_sub(kept.charged());
            let pends = least(pending, room);
            let stocks = least(nr_pages, room - pends);
            let mark = if pends > 0 && missed { MISSED } else { 0 };
            let new = (kept.0 + pends as u64 * PENDING + stocks as u64) | mark;
            if self.word.replace(seen.0, new) {
                return Refill { displaced, excess: pending - pends + (nr_pages - stocks) };
            }
        }
        Refill { displaced: StockWord::EMPTY, excess: nr_pages + pending }
    }

    /// Puts freed pages of `owner` back if the stock is cached for it; returns how many found no room.
    #[inline(always)]
    pub fn put_back(&self, owner: u32, nr_pages: u32, batch: u32) -> u32 {
        for _ in 0..TRIES {
            let seen = StockWord(self.word.load());
            if seen.owner() != owner {
                return nr_pages;
            }
            let added = least(nr_pages, batch.saturating_sub(seen.charged()));
            if added == 0 || self.word.replace(seen.0, seen.0 + added as u64) {
                return nr_pages - added;
            }
        }
        nr_pages
    }

    /// Takes the whole stock, whatever its owner, from any CPU.
    #[inline(always)]
    pub fn take(&self) -> StockWord {
        StockWord(self.word.swap(StockWord::EMPTY.0))
    }

    /// Takes the whole uncharge batch, whatever its owner, from any CPU.
    #[inline(always)]
    pub fn take_uncharge_batch(&self) -> StockWord {
        StockWord(self.uncharge_batch.swap(StockWord::EMPTY.0))
    }

    /// Takes the pending page-cache change, whatever its owner, from any CPU.
    #[inline(always)]
    pub fn take_file(&self) -> FileWord {
        FileWord(self.file.swap(FileWord::EMPTY.0))
    }

    /// Adds a page-cache change of `owner` and returns what the shared counters must now be told: a full batch, or
    /// another owner's change.
    #[inline(always)]
    pub fn batch_file(&self, owner: u32, change: i32, batch: u32) -> [FileWord; 2] {
        for _ in 0..TRIES {
            let seen = FileWord(self.file.load());
            let (held, other) =
                if seen.owner() == owner { (seen.change(), FileWord::EMPTY) } else { (0, seen) };
            let sum = FileWord::new(owner, held + change);
            let is_full = sum.change().unsigned_abs() >= batch;
            let left = if is_full { FileWord::EMPTY } else { sum };
            if self.file.replace(seen.0, left.0) {
                return [other, if is_full { sum } else { FileWord::EMPTY }];
            }
        }
        [FileWord::EMPTY, FileWord::new(owner, change)]
    }

    /// Adds freed pages of `owner` to the uncharge batch and returns what must now be uncharged on the shared counters:
    /// a full batch, or another owner's.
    #[inline(always)]
    pub fn batch_up(&self, owner: u32, nr_pages: u32, batch: u32) -> [StockWord; 2] {
        for _ in 0..TRIES {
            let seen = StockWord(self.uncharge_batch.load());
            let held = if seen.owner() == owner { seen.nr_pages() } else { 0 };
            let other = if seen.owner() == owner { StockWord::EMPTY } else { seen };
            let sum = StockWord::new(owner, 0, held + nr_pages);
            let is_full = held + nr_pages >= batch;
            let left = if is_full { StockWord::EMPTY } else { sum };
            if self.uncharge_batch.replace(seen.0, left.0) {
                return [other, if is_full { sum } else { StockWord::EMPTY }];
            }
        }
        [StockWord::EMPTY, StockWord::new(owner, 0, nr_pages)]
    }
}

#[inline(always)]
fn least(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}
