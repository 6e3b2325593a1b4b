//! Lost frees: pages that are free in the kernel but still have an owner, because a run of the probe that would have
//! seen the free was skipped. They are repaired when they are allocated again or leave a CPU's list. On an idle host
//! that never happens, so user space has them looked for.
//!
//! A free page has a reference count of 0. A page in use can have that as well for a moment: while it is moved, or a
//! huge page is split (`folio_ref_freeze`). So each page is checked twice: a free one is marked, and uncharged some
//! time later if it is still marked and free. An allocation or free in between clears the mark.

use crate::adopt::{Found, Window, each};
use crate::control::Refusal;
use crate::page::{Entry, UNCONFIRMED, UNCOUNTED, owner_in, uncharge_entry};
use crate::{Loss, Machine, NOBODY};

/// Marks pages of the window that have an owner and are free; returns how many it marked.
///
/// # Errors
/// [`Refusal::Missing`] if they are outside the page-owner map.
#[inline(always)]
pub fn doubt_free<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    look(machine, window, |entry, seen, pfn| {
        seen & UNCONFIRMED == 0 && machine.is_free(pfn) && entry.replace(seen, seen | UNCONFIRMED)
    })
}

/// Uncharges pages of the window that are marked and free, and clears the mark of those that are not free; returns how
/// many it uncharged.
///
/// # Errors
/// As [`doubt_free`].
#[inline(always)]
pub fn disown_free<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    let nr_pages = look(machine, window, |entry, seen, pfn| {
        if seen & UNCONFIRMED == 0 {
            return false;
        }
        if !machine.is_free(pfn) {
            entry.replace(seen, seen & !UNCONFIRMED);
            return false;
        }
        // A page allocated since the check has lost the mark.
        entry.replace(seen, NOBODY) && uncharge_entry(machine, seen)
    })?;
    if nr_pages > 0 {
        machine.lose(Loss::Healed, nr_pages.into());
    }
    Ok(nr_pages)
}

/// Calls `act` for each page of the window that has an owner and a reference count of its own, with its entry, the
/// value read there, and its frame number. Returns for how many it was true.
#[inline(always)]
fn look<M: Machine>(
    machine: &M,
    window: Window,
    act: impl Fn(&M::Entry, u32, u64) -> bool,
) -> Result<u32, Refusal> {
    let found = each(machine, window, |entry, pfn| {
        let seen = entry.load();
        let is_counted = owner_in(seen) != NOBODY && seen & UNCOUNTED == 0;
        Found { nr_pages: u32::from(is_counted && act(entry, seen, pfn)), nr_file: 0 }
    })?;
    Ok(found.nr_pages)
}
