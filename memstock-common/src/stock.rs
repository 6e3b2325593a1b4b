//! The per-CPU stock: one packed word of pre-charged pages and the statistics on its cache line.
//!
//! The word is `owner << 32 | pending << 16 | nr_pages`. Everything that is charged but not yet
//! used sits in this one word, so that a single atomic swap, by any CPU, takes the whole stock
//! together with the knowledge of whose it is. It changes by atomic read-modify-write only.

use crate::{Identity, NO_INDEX, Word};

/// The value of a stock word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockWord(pub u64);

impl StockWord {
    /// Nothing stocked, cached for nobody.
    pub const EMPTY: Self = Self(0);

    /// A stock of `nr_pages` for the cgroup whose id has the low 32 bits `owner`.
    #[inline(always)]
    pub const fn new(owner: u32, nr_pages: u32) -> Self {
        Self((owner as u64) << 32 | nr_pages as u64)
    }

    /// Low 32 bits of the id of the cgroup it is cached for; 0 when it is cached for nobody.
    #[inline(always)]
    pub const fn owner(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Pages that can be consumed.
    #[inline(always)]
    pub const fn nr_pages(self) -> u32 {
        (self.0 & 0xffff) as u32
    }

    /// Pages consumed by a fault that no allocation has taken yet.
    #[inline(always)]
    pub const fn pending(self) -> u32 {
        (self.0 >> 16 & 0xffff) as u32
    }

    /// Everything a drain gives back: stocked and pending pages.
    #[inline(always)]
    pub const fn charged(self) -> u32 {
        self.nr_pages() + self.pending()
    }
}

/// One slot of a CPU's stock: the value type of the map `STOCK`, what a hit needs first.
///
/// `word` and `drains` may be changed by any CPU, `credit` also by the unregistering one; the
/// other fields have one writer, the fault program on the CPU that owns the slot, which the
/// kernel never nests (the recursion guard of raw tracepoint programs).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stock<W> {
    /// The stock word.
    pub word: W,
    /// Faults served from the stock since load.
    pub hits: W,
    /// Whose fault the CPU served last; only that of slot 0 is used.
    pub identity: Identity<W>,
    /// `generation << 32 | owner` of the cgroup last found to be untracked here.
    pub untracked: W,
    /// The part of `hits` that is already credited to a cgroup in [`CgroupCpu`].
    pub settled: W,
    /// Index of the counter to credit `hits - settled` to, plus one; 0 for none.
    pub credit: W,
    /// Faults of tracked cgroups that the stock could not serve.
    pub misses: W,
    /// Batches put into the stock.
    pub refills: W,
    /// Times pages were taken out of the stock without being used.
    pub drains: W,
}

const _: () = assert!(size_of::<Stock<u64>>() == 88, "no implicit padding");
const _: () =
    assert!(core::mem::offset_of!(Stock<u64>, settled) == 48, "a hit needs the first 48 bytes");

/// What one cgroup did on one CPU: the value type of the per-CPU map `CGROUP_CPU`.
///
/// Written by the fault program on that CPU only; zeroed when the counter is registered.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct CgroupCpu<W> {
    /// Faults served from the stock, settled at each miss of the CPU.
    pub hits: W,
    /// Faults that went to the shared counters.
    pub misses: W,
    /// Misses for which only one page could be charged, not a batch.
    pub singles: W,
    /// Pages charged although a limit was reached.
    pub forced: W,
}

const _: () = assert!(size_of::<CgroupCpu<u64>>() == 32);

/// What a refill could not leave in the stock, for the caller to uncharge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// The stock of another cgroup that was displaced; [`StockWord::EMPTY`] if none was.
    pub displaced: StockWord,
    /// Pages of the refilling cgroup that found no room.
    pub excess: u32,
}

impl<W: Word> Stock<W> {
    /// The patch's `consume_stock`: takes `nr_pages` if they are stocked for `owner`.
    ///
    /// Takes all or nothing. A race with a drain counts as "not stocked": the pages are gone.
    #[inline(always)]
    pub fn consume(&self, owner: u32, nr_pages: u32) -> bool {
        let seen = StockWord(self.word.load());
        seen.owner() == owner
            && seen.nr_pages() >= nr_pages
            && self.word.replace(seen.0, seen.0 - nr_pages as u64)
    }

    /// The patch's `refill_stock`: stocks `nr_pages` charged pages for `owner`.
    ///
    /// The stock never holds more than `batch` pages, pending ones included.
    #[inline(always)]
    pub fn refill(&self, owner: u32, nr_pages: u32, batch: u32) -> Refill {
        for _ in 0..4 {
            let seen = StockWord(self.word.load());
            if seen.owner() == owner {
                let room = batch.saturating_sub(seen.charged());
                let added = if nr_pages < room { nr_pages } else { room };
                if self.word.replace(seen.0, seen.0 + added as u64) {
                    return Refill { displaced: StockWord::EMPTY, excess: nr_pages - added };
                }
            } else {
                let fits = if nr_pages < batch { nr_pages } else { batch };
                if self.word.replace(seen.0, StockWord::new(owner, fits).0) {
                    return Refill { displaced: seen, excess: nr_pages - fits };
                }
            }
        }
        Refill { displaced: StockWord::EMPTY, excess: nr_pages }
    }

    /// Takes the whole stock, whoever it is cached for, from any CPU.
    #[inline(always)]
    pub fn take(&self) -> StockWord {
        StockWord(self.word.swap(StockWord::EMPTY.0))
    }

    /// Counter index to which unsettled hits belong, or [`NO_INDEX`].
    #[inline(always)]
    pub fn creditor(&self) -> u32 {
        creditor(self.credit.load())
    }
}

/// Decodes [`Stock::credit`]: a counter index, or [`NO_INDEX`].
#[inline(always)]
pub const fn creditor(credit: u64) -> u32 {
    if credit == 0 { NO_INDEX } else { (credit - 1) as u32 }
}

/// Encodes a counter index for [`Stock::credit`].
#[inline(always)]
pub const fn credit_for(index: u32) -> u64 {
    index as u64 + 1
}

/// Encodes [`Stock::untracked`].
///
/// Of the generation the low 32 bits are kept: a mark that is exactly 2^32 generations old would
/// pass for fresh until the next one starts.
#[inline(always)]
pub const fn untracked_mark(owner: u32, generation: u64) -> u64 {
    generation << 32 | owner as u64
}
