//! Lost frees: pages that the kernel has free and that are still somebody's, because the run of the probe that would have
//! seen them go was skipped. They are repaired when they are allocated again, or leave a CPU's list; on an idle host that
//! is never, so user space has them looked for.
//!
//! A free page has a count of 0. One in use can have that as well, for a moment: while it is moved, or a huge page is
//! split (`folio_ref_freeze`). So it is looked twice: what is free is marked, and taken some time later if it still is.
//! Whoever allocates or frees the page in between takes the mark away.

use crate::adopt::{Found, Window, each};
use crate::control::Refusal;
use crate::page::{Entry, UNCONFIRMED, UNCOUNTED, owner_in, uncharge_entry};
use crate::{Loss, Machine, NOBODY};

/// Marks pages of the window that have an owner and are free; answers with how many it marked.
///
/// # Errors
/// [`Refusal::Missing`]: the page-owner map does not have them.
#[inline(always)]
pub fn doubt_free<M: Machine>(machine: &M, window: Window) -> Result<u32, Refusal> {
    look(machine, window, |entry, seen, pfn| {
        seen & UNCONFIRMED == 0 && machine.is_free(pfn) && entry.replace(seen, seen | UNCONFIRMED)
    })
}

/// Uncharges pages of the window that are marked and free, and takes the mark from those that are not free; answers with
/// how many it uncharged.
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
        // Allocated since it was seen to be free, it has lost the mark.
        entry.replace(seen, NOBODY) && uncharge_entry(machine, seen)
    })?;
    if nr_pages > 0 {
        machine.lose(Loss::Healed, nr_pages.into());
    }
    Ok(nr_pages)
}

/// Has `act` look at each page of the window that has an owner and a count of its own: at its entry, what was seen there,
/// and which page it is. Says of how many it was true.
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
