//! Huge pages that one task allocates for another, to replace the other's small pages: khugepaged, and callers of
//! `process_madvise(MADV_COLLAPSE)`.
//!
//! The kernel charges them to the owner of the memory (`alloc_charge_folio` in `mm/khugepaged.c`), whom no tracepoint
//! names at the allocation, only at the end of the collapse. So a huge page allocated for nobody is recorded until
//! then: its number for each task that may be collapsing, and a mark in the page-owner map that its free clears.

use crate::adopt::{Found, WINDOW_PAGES, Window, replace};
use crate::file::FILE;
use crate::page::{Entry, UNCONFIRMED, commit};
use crate::slots::stock_for;
use crate::uncharge::uncharge_pages;
use crate::{Machine, NOBODY, Word};

/// log2 of the pages of a huge page made by a collapse. Collapses to larger ones are not tracked.
pub const COLLAPSE_ORDER: u32 = WINDOW_PAGES.trailing_zeros();
/// Tasks that can collapse at once, by their number modulo this. If two meet, the huge page of the one that allocated
/// first is charged to nobody, until a repair.
pub const COLLAPSES: u32 = 64;

/// Records that this task has allocated a huge page, with the first entry `head`, for nobody.
#[inline(always)]
pub(crate) fn collapse_began<M: Machine>(machine: &M, head: &M::Entry, pfn: u64) {
    let task = machine.task();
    if let Some(place) = machine.collapse(task % COLLAPSES) {
        head.replace(NOBODY, UNCONFIRMED);
        place.swap(u64::from(task) << 32 | pfn >> COLLAPSE_ORDER);
    }
}

/// This task has finished, or failed, a collapse in memory that belongs to `owner`: charges to it the huge page that
/// the task allocated last, unless that is free again. `is_file` says of its first page frame whether it is reclaimable
/// page cache.
///
/// The small pages are uncharged as they are freed, which is before this. A page of the huge one that is freed
/// meanwhile counts as a missed free.
#[inline(always)]
pub fn collapsed<M: Machine>(
    machine: &M,
    owner: impl FnOnce() -> u32,
    is_file: impl FnOnce(u64) -> bool,
) {
    let task = machine.task();
    let Some(place) = machine.collapse(task % COLLAPSES) else { return };
    let began = place.load();
    if began >> 32 != u64::from(task) || !place.replace(began, 0) {
        return;
    }
    let first_pfn = (began & u64::from(u32::MAX)) << COLLAPSE_ORDER;
    let Some(head) = machine.chunk(first_pfn).map(|chunk| chunk.entry(first_pfn)) else { return };
    if head.load() != UNCONFIRMED {
        return;
    }
    let owner = owner();
    if owner == NOBODY {
        return;
    }
    let is_file = is_file(first_pfn);
    let new = if is_file { owner | FILE } else { owner };
    // Report page cache first, or the charge would count it as needed; and charge before there is an entry: a free that
    // finds one uncharges at once.
    if is_file {
        machine.file_changed(owner, WINDOW_PAGES as i32);
    }
    commit(machine, stock_for(machine, owner), owner, WINDOW_PAGES);
    let mut given = 0;
    if head.replace(UNCONFIRMED, new) {
        let mut rest = Window { first_pfn, pages: [u64::MAX; _], ..Window::default() };
        rest.pages[0] -= 1;
        let Found { nr_pages, .. } = replace(machine, rest, NOBODY, new).unwrap_or_default();
        given = 1 + nr_pages;
    }
    if given < WINDOW_PAGES {
        if is_file {
            machine.file_changed(owner, given as i32 - WINDOW_PAGES as i32);
        }
        uncharge_pages(machine, owner, WINDOW_PAGES - given);
    }
}
