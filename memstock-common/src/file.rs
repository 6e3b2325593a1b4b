//! The page cache: which of a cgroup's pages the kernel could reclaim.
//!
//! The owner entry of a page-cache page has the bit [`FILE`], unless its mapping is unevictable (ramfs,
//! `memfd_secret`). Each counter knows how many such pages it and its descendants have, so that `usage - file - stocked` is
//! what is *needed*: what the kernel could not reclaim without swap. A page costs no access to a shared cache line:
//! changes are collected on each CPU, a batch at a time, like uncharges.

use crate::page::{CHUNK_PAGES, Chunk, Entry, commit, owner_in};
use crate::slots::stock_for;
use crate::world::Step;
use crate::{CgroupCpu, Loss, Machine, NOBODY, Stock, Word, index_of};

/// Set in the owner entry of a page that is page cache. The page keeps it until it is freed.
pub const FILE: u32 = 1 << 30;

/// The change of one owner's page cache that a CPU has yet to report to the shared counters: `owner << 32 | change`,
/// the change in pages as a signed 32-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileWord(pub u64);

impl FileWord {
    /// No change, of nobody.
    pub const EMPTY: Self = Self(0);

    /// A change by `change` pages of `owner`.
    #[inline(always)]
    pub const fn new(owner: u32, change: i32) -> Self {
        Self((owner as u64) << 32 | change as u32 as u64)
    }

    /// The owner of the page cache.
    #[inline(always)]
    pub const fn owner(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The change in pages.
    #[inline(always)]
    pub const fn change(self) -> i32 {
        self.0 as i32
    }
}

/// The file that a page belongs to, and where: the value type of the map `FILE_PAGES`. What open_by_handle_at(2) needs,
/// for file systems that identify their files by inode and generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilePage<W> {
    /// `i_ino`; 0 if the page is not page cache.
    pub inode: W,
    /// The offset in the file, in pages.
    pub index: W,
    /// `s_dev` of the file system in the kernel's encoding; in the upper half `i_generation` of the inode.
    pub dev: W,
}

/// What can be asked about a folio that was added to the page cache.
pub trait Folio {
    /// The number of pages it has, and whether it can be reclaimed: its mapping is not unevictable. None if not known.
    fn extent(&self) -> Option<(u32, bool)>;
    /// Whether the kernel charges page cache of its mapping.
    fn is_charged(&self) -> bool;
    /// The owner charged for what the current task adds.
    fn owner(&self) -> u32;
}

/// A folio was added to the page cache. If it has no owner yet, because its allocation did not look like one that is
/// charged, charges the current task; and if it is evictable, sets the bit in those of its pages that the first page's
/// owner has.
///
/// The kernel holds the folio lock, so the folio is neither allocated nor freed meanwhile.
#[inline(always)]
pub fn added<M: Machine>(machine: &M, pfn: u64, folio: &impl Folio) {
    let Some(chunk) = machine.chunk(pfn) else { return };
    let mut owner = owner_in(chunk.entry(pfn).load());
    let is_new = owner == NOBODY;
    if is_new {
        owner = folio.owner();
        if owner == NOBODY || !folio.is_charged() {
            return;
        }
    }
    let Some((nr_pages, is_evictable)) = folio.extent() else { return };
    if is_new {
        machine.claim(pfn, nr_pages, owner);
    }
    if !is_evictable {
        return;
    }
    let marked = if nr_pages == 1 {
        u32::from(mark(chunk.entry(pfn), owner))
    } else {
        machine.mark_file(pfn, nr_pages, owner)
    };
    if marked > 0 {
        machine.file_changed(owner, marked as i32);
    }
}

/// Sets the bit in a folio's pages that `owner` has; returns how many did not have it before. A folio is in one chunk.
#[inline(always)]
pub fn mark_file<M: Machine>(machine: &M, pfn: u64, nr_pages: u32, owner: u32) -> u32 {
    walk(machine, pfn, nr_pages, owner, mark)
}

/// Charges `owner` for the pages of a folio that have no owner. A folio is in one chunk.
#[inline(always)]
pub fn claim<M: Machine>(machine: &M, pfn: u64, nr_pages: u32, owner: u32) {
    // A page with an owner entry must be charged.
    let Some(share) = machine.cgroup_cpu(index_of(owner)) else {
        machine.lose(Loss::CountersMissing, 1);
        return;
    };
    let claimed = walk(machine, pfn, nr_pages, owner, |entry, owner| entry.replace(NOBODY, owner));
    if claimed == 0 {
        return;
    }
    let stock = stock_for(machine, owner);
    let missed = commit(machine, stock, owner, claimed);
    count_claimed(share, stock, claimed - missed, missed);
}

/// Counts pages as [`allocated`](crate::page::allocated) does, whose program may interrupt this one: by atomic
/// operations.
#[inline(always)]
fn count_claimed<W: Word>(
    share: &CgroupCpu<W>,
    stock: Option<&Stock<W>>,
    from_stock: u32,
    missed: u32,
) {
    share.from_stock.fetch_add(from_stock.into());
    share.missed.fetch_add(missed.into());
    if let Some(stock) = stock {
        stock.from_stock.fetch_add(from_stock.into());
        stock.missed.fetch_add(missed.into());
    }
}

/// Calls `change` for the entry of each page of a folio; returns how many it changed.
#[inline(always)]
fn walk<M: Machine, F: Fn(&M::Entry, u32) -> bool>(
    machine: &M,
    pfn: u64,
    nr_pages: u32,
    owner: u32,
    change: F,
) -> u32 {
    let Some(chunk) = machine.chunk(pfn) else { return 0 };
    let (at, changed) = (machine.opaque_zero(), machine.opaque_zero());
    let mut walk = Walk { chunk, pfn, at, end: nr_pages, owner, change, changed };
    machine.repeat(CHUNK_PAGES, &mut walk);
    walk.changed
}

struct Walk<'a, E, F> {
    chunk: &'a Chunk<E>,
    pfn: u64,
    at: u32,
    end: u32,
    owner: u32,
    change: F,
    changed: u32,
}

impl<E: Entry, F: Fn(&E, u32) -> bool> Step for Walk<'_, E, F> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.at >= self.end {
            return false;
        }
        let entry = self.chunk.entry(self.pfn + self.at as u64);
        self.changed += u32::from((self.change)(entry, self.owner));
        self.at += 1;
        true
    }
}

/// Sets the bit in an entry of `owner`; returns whether it was clear. User space may set or clear
/// [`UNCONFIRMED`](crate::page::UNCONFIRMED) meanwhile, hence the second try.
#[inline(always)]
fn mark<E: Entry>(entry: &E, owner: u32) -> bool {
    for _ in 0..2 {
        let seen = entry.load();
        if owner_in(seen) != owner || seen & FILE != 0 {
            return false;
        }
        if entry.replace(seen, seen | FILE) {
            return true;
        }
    }
    false
}

/// Reports a change of `owner`'s page cache to the shared counters, with the next batch.
#[inline(always)]
pub fn file_changed<M: Machine>(machine: &M, owner: u32, change: i32) {
    let Some(stock) = stock_for(machine, owner) else {
        machine.change_file(index_of(owner), change);
        return;
    };
    for word in stock.batch_file(owner, change, machine.uncharge_batch()) {
        apply_change(machine, word);
    }
}

/// Reports a change that was taken from a CPU to the shared counters.
#[inline(always)]
pub(crate) fn apply_change<M: Machine>(machine: &M, word: FileWord) {
    if word.change() != 0 {
        machine.change_file(index_of(word.owner()), word.change());
    }
}
