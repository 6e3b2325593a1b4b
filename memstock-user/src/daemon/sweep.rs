//! Looks for pages that the kernel has free and that are still somebody's, after runs of the probes were skipped. The
//! kernel half decides page by page ([`memstock_common::lost`]); this goes through the page-owner map, a little at a time.

use std::time::Duration;

use anyhow::Result;
use memstock_common::page::{CHUNK_PAGES, UNCONFIRMED};
use memstock_common::{Chunk, NOBODY};

use crate::audit::adoption::{Page, windows};
use crate::engine::Engine;
use crate::engine::mapped::Mapped;
use crate::host::pace::{Pace, spent_since};

/// CPU time that one step takes, about: [`Pace`] makes a step a second of it.
const STEP: Duration = Duration::from_millis(9);

/// A chunk of the map without owners.
const UNOWNED: [u32; CHUNK_PAGES as usize] = [NOBODY; _];

/// How far it has come.
#[derive(Debug, Default)]
pub struct Sweep {
    pace: Pace,
    /// Skipped runs that it has looked after, or is looking after.
    seen: u64,
    /// The map and the chunk to go on with, if it is not through. To map it costs more than to look at some of it.
    at: Option<(Mapped<Chunk<u32>>, usize)>,
    /// Pages that were free when they were looked at.
    doubted: Vec<Page>,
    /// CPU time that the look through the map has taken so far.
    spent: Duration,
}

impl Sweep {
    /// Goes on with it, if anything was skipped that has not been looked after. To be called about once a second, which
    /// is the time that a page has to be free for.
    ///
    /// # Errors
    /// The map cannot be read, or the kernel refuses.
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
                log::debug!("looked for pages that were freed unseen: {spent:?} of a CPU");
                *at = None;
            }
            Ok(())
        })
    }
}

/// Has the free pages of a chunk marked, and adds them to those that are doubted.
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
    // One that was marked before is somebody else's to take or leave.
    let is_new = |&n: &usize| after.owners[n] & !before.owners[n] & UNCONFIRMED != 0;
    doubted.extend((0..UNOWNED.len()).filter(is_new).map(page));
    Ok(())
}
