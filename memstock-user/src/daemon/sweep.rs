//! Searches for pages that the kernel has freed but that still have an owner, after runs of the probes were skipped.
//! The kernel half decides page by page ([`memstock_common::lost`]); this file walks the owner map, a little at a time.

use std::time::Duration;

use anyhow::Result;
use memstock_common::page::{CHUNK_PAGES, UNCONFIRMED};
use memstock_common::{Chunk, NOBODY};

use crate::audit::adoption::{Page, windows};
use crate::engine::Engine;
use crate::engine::mapped::Mapped;
use crate::host::pace::{Pace, spent_since};

/// Approximate CPU time of one step; [`Pace`] makes one such step a second.
const STEP: Duration = Duration::from_millis(9);

/// A chunk of the map without owners.
const UNOWNED: [u32; CHUNK_PAGES as usize] = [NOBODY; _];

/// The progress of the search.
#[derive(Debug, Default)]
pub struct Sweep {
    pace: Pace,
    /// The number of skipped runs that the last search, or the one in progress, covers.
    seen: u64,
    /// The map and the next chunk, while a search is in progress. Mapping costs more than searching a part of it.
    at: Option<(Mapped<Chunk<u32>>, usize)>,
    /// Pages that were free at the first look and are checked again at the next step.
    doubted: Vec<Page>,
    /// CPU time that this search has taken so far.
    spent: Duration,
}

impl Sweep {
    /// Continues the search, or starts one if runs were skipped since the last. Call it about once a second: a page
    /// must stay free for that long.
    ///
    /// # Errors
    /// The owner map cannot be read, or the kernel refuses.
    pub fn step(&mut self, engine: &Engine) -> Result<()> {
        let Self { pace, seen, at, doubted, spent } = self;
        pace.work(|start| {
            for window in windows(&std::mem::take(doubted)) {
                engine.control().disown_free(window)?;
            }
            let skipped = engine.recursion_misses()?;
            if at.is_none() && skipped > *seen {
                (*seen, *at) = (skipped, Some((engine.owners()?, 0)));
                *spent = Duration::ZERO;
            }
            let Some((owners, number)) = at else { return Ok(()) };
            while *number < owners.len() && spent_since(start)? < STEP {
                doubt(engine, owners, *number, doubted)?;
                *number += 1;
            }
            *spent += spent_since(start)?;
            if *number == owners.len() {
                log::debug!("searched for missed frees: {spent:?} of CPU time");
                *at = None;
            }
            Ok(())
        })
    }
}

/// Marks the free pages of a chunk as doubted, and adds them to `doubted`.
fn doubt(
    engine: &Engine,
    owners: &Mapped<Chunk<u32>>,
    number: usize,
    doubted: &mut Vec<Page>,
) -> Result<()> {
    let Some(before) = owners.get(number).filter(|chunk| chunk.owners != UNOWNED) else {
        return Ok(());
    };
    let first = number as u64 * u64::from(CHUNK_PAGES);
    let page = |n: usize| Page { pfn: first + n as u64, index: 0, is_file: false };
    let owned = (0..UNOWNED.len()).filter(|&n| before.owners[n] != NOBODY);
    let mut marked = 0;
    for window in windows(&owned.map(page).collect::<Vec<_>>()) {
        marked += engine.control().doubt_free(window)?;
    }
    if marked == 0 {
        return Ok(());
    }
    let Some(after) = owners.get(number) else { return Ok(()) };
    let is_ours = |&n: &usize| is_new(before.owners[n], after.owners[n]);
    doubted.extend((0..UNOWNED.len()).filter(is_ours).map(page));
    Ok(())
}

/// Whether a page was marked between the two looks. One that was already marked belongs to another repair.
fn is_new(before: u32, after: u32) -> bool {
    after & !before & UNCONFIRMED != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_marked_before_belongs_to_another_repair() {
        let doubt = 7 | UNCONFIRMED;
        assert!(is_new(7, doubt));
        assert!(!is_new(doubt, doubt) && !is_new(doubt, 7) && !is_new(7, 7));
    }
}
