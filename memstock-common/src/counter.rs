//! The shared counters of one tracked cgroup: `mm/page_counter.c` on map memory.

use crate::{NO_LIMIT, Word, index_of};

/// Usage of one resource (memory, or memory+swap), in pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PageCounter<W> {
    /// Pages charged: used, stocked, and in flight.
    pub usage: W,
    /// Highest usage that every level of the hierarchy accepted.
    pub watermark: W,
    /// Charges that failed at this counter, including batches that did not fit.
    pub failcnt: W,
}

impl<W: Word> PageCounter<W> {
    /// Adds speculatively; if that exceeds `limit` plus the allowance for `huge` pages, subtracts again and counts the
    /// failure.
    ///
    /// A charge that does not fit, and is about to be taken back, can push out one that fits, as in the kernel ("racy,
    /// but tolerable", `page_counter_try_charge`): a charge is refused too early by at most what the other CPUs have in
    /// flight, CPUs × batch pages, and never granted too late. For a moment a reader may see the usage above the limit
    /// by as much.
    #[inline(always)]
    pub fn try_charge(&self, nr_pages: u64, limit: &W, huge: &W) -> bool {
        let before = self.usage.fetch_add(nr_pages);
        let new = before.wrapping_add(nr_pages);
        // Read the limit after the add, or `set_limit` could miss a charge in flight.
        let limit = limit.load();
        // No charge may be the first to use the allowance: with usage at or below the limit it is void, and about to be
        // reset.
        if new <= limit || before > limit && new <= limit.saturating_add(huge.load()) {
            return true;
        }
        self.usage.fetch_sub(nr_pages);
        self.failcnt.fetch_add(1);
        false
    }

    /// Adds regardless of the limit.
    #[inline(always)]
    pub fn charge(&self, nr_pages: u64) {
        let new = self.usage.fetch_add(nr_pages).wrapping_add(nr_pages);
        self.watermark.raise(new);
    }

    /// Subtracts.
    #[inline(always)]
    pub fn uncharge(&self, nr_pages: u64) {
        self.usage.fetch_sub(nr_pages);
    }

    /// Raises the watermark to the usage, but not above `limit`: any excess is another CPU's speculative charge, about
    /// to be taken back.
    #[inline(always)]
    pub fn raise_watermark(&self, limit: u64) {
        let usage = self.usage.load();
        self.watermark.raise(if usage < limit { usage } else { limit });
    }

    /// Sets `limit` to `nr_pages`, or refuses to lower it because the usage is higher: `page_counter_set_max`. As
    /// there, the caller makes sure that nobody else is setting it.
    ///
    /// After it succeeds, no charge that began later brings the usage above `nr_pages`.
    #[inline(always)]
    pub fn set_limit(&self, limit: &W, nr_pages: u64) -> bool {
        let old = limit.load();
        if nr_pages >= old {
            limit.swap(nr_pages);
            return true;
        }
        for _ in 0..16 {
            let usage = self.usage.load();
            if usage > nr_pages {
                return false;
            }
            limit.swap(nr_pages);
            // A charge that read the old limit has either added its pages by now, and is seen
            // here, or reads the new one.
            if self.usage.load() <= usage {
                return true;
            }
            limit.swap(old);
        }
        false
    }
}

/// The shared counters of a tracked cgroup: the value type of the map `COUNTERS`, two cache lines.
///
/// Charges, drains and uncharges on any CPU write the first line. Only the control programs and, at most once a
/// millisecond, an event write the second, so that reading limit and parent stays cheap.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter<W> {
    /// Memory.
    pub memory: PageCounter<W>,
    /// Memory+swap; stays 0 unless swap accounting is on.
    pub memsw: PageCounter<W>,
    /// Page cache in `memory`'s usage, as reported by the CPUs so far; signed, because a removal may be reported before
    /// the addition.
    pub file: W,
    /// Highest usage less `file`, taken just before either changed: only then is it known whether the pages charged
    /// last are page cache. Too high by pages that were stocked, about to be uncharged, or page cache not yet reported
    /// (each at most a batch for each slot of a CPU), and by a folio that another CPU was about to add to the cache.
    /// Too low by page cache whose removal was not yet reported, and by what was charged or reported last: less than
    /// three batches for each slot of a CPU.
    pub needed_watermark: W,

    /// Hard limit of `memory` in pages, or [`NO_LIMIT`].
    pub memory_limit: W,
    /// Hard limit of `memsw` in pages, or [`NO_LIMIT`].
    pub memsw_limit: W,
    /// cgroup v2 id; 0 while the counter is free.
    pub id: W,
    /// [`owner_of`](crate::owner_of) the nearest ancestor that was tracked, 0 at the top; the bits from [`CHILD`] up
    /// count the tracked and dying cgroups directly below.
    pub parent: W,
    /// How far huge pages that did not fit may exceed the limits, in pages: see [`huge`](crate::huge).
    pub huge: W,
    /// Pages in swap of the tasks of this cgroup itself, part of `memsw`'s usage.
    pub swapped: W,
    /// When a [`LimitNear`](crate::event::EventKind::LimitNear) was last sent, ns.
    pub near_at: W,
    /// When a [`LimitHit`](crate::event::EventKind::LimitHit) was last sent, ns.
    pub hit_at: W,
}

/// One child, in the parent's `parent` word.
pub const CHILD: u64 = 1 << 32;
const _: () = assert!(size_of::<Counter<u64>>() == 128, "two cache lines");

impl<W: Word> Counter<W> {
    /// Charges memory regardless of its limit.
    #[inline(always)]
    pub fn charge_memory(&self, nr_pages: u64) {
        let before = self.memory.usage.fetch_add(nr_pages);
        self.raise_memory(before.wrapping_add(nr_pages), nr_pages);
    }

    /// Uncharges memory.
    #[inline(always)]
    pub fn uncharge_memory(&self, nr_pages: u64) {
        let before = self.memory.usage.fetch_sub(nr_pages);
        self.needed_watermark.raise(needed(before, self.file.load()));
    }

    /// Raises the memory watermarks to the usage, of which `nr_pages` were charged just now, but not above `limit`: any
    /// excess is another CPU's speculative charge, about to be taken back.
    #[inline(always)]
    pub fn raise_memory_watermarks(&self, nr_pages: u64, limit: u64) {
        let usage = self.memory.usage.load();
        self.raise_memory(if usage < limit { usage } else { limit }, nr_pages);
    }

    /// Adds `change` to the page cache.
    ///
    /// Reclaimed page cache can be replaced by needed memory without another charge: by way of a stock, a batch at a
    /// time. So a removal, too, raises the watermark to what was needed until now; not to what is needed afterwards,
    /// because the removed pages are about to be uncharged.
    #[inline(always)]
    pub fn change_file(&self, change: i32) {
        let before = self.file.fetch_add(change as i64 as u64);
        if change < 0 {
            self.needed_watermark.raise(needed(self.memory.usage.load(), before));
        }
    }

    #[inline(always)]
    fn raise_memory(&self, usage: u64, charged: u64) {
        self.memory.watermark.raise(usage);
        let before = usage.saturating_sub(charged);
        self.needed_watermark.raise(needed(before, self.file.load()));
    }
}

/// The part of `usage` that the kernel could not reclaim: all but `file`, which is a signed number.
#[inline(always)]
pub const fn needed(usage: u64, file: u64) -> u64 {
    if (file as i64) < 0 { usage } else { usage.saturating_sub(file) }
}

/// The part of `usage` that is needed above a limit, less the allowance for huge pages. Nobody is killed for anything
/// else.
#[inline(always)]
pub const fn needed_above(usage: u64, file: u64, limit: u64, huge: u64) -> u64 {
    needed(usage, file).saturating_sub(limit.saturating_add(huge))
}

/// A limit in pages, as shown to people: none, or a number.
#[inline(always)]
pub const fn limit_of(nr_pages: u64) -> Option<u64> {
    if nr_pages == NO_LIMIT { None } else { Some(nr_pages) }
}

impl<W: Word> Counter<W> {
    /// Index of the nearest ancestor that was tracked, or [`NO_INDEX`](crate::NO_INDEX).
    #[inline(always)]
    pub fn parent(&self) -> u32 {
        index_of(self.parent.load() as u32)
    }

    /// The number of tracked and dying cgroups directly below.
    #[inline(always)]
    pub fn children(&self) -> u64 {
        self.parent.load() / CHILD
    }
}
