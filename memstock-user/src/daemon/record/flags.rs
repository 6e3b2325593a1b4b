//! Owns the walk over the flags of a cgroup's pages, which tells what of them is dirty, locked and shared; seldom, for it
//! takes some 0.4 µs a page. Must not decide what is recorded.

use std::time::{Duration, Instant};

use anyhow::Result;
use memstock_common::file::FILE;
use memstock_common::page::{CHUNK_PAGES, is_of};
use memstock_common::{Chunk, MAX_DEPTH, index_of};

use super::usage::Beside;
use crate::engine::Engine;
use crate::engine::mapped::Mapped;
use crate::host::pages::{KernelPages, Kind};

/// What walks may take at first, beyond their part of the time.
const CREDIT: Duration = Duration::from_millis(100);
/// One part in so many of the time.
const PART: u32 = 100;
/// Between two when nothing new is needed.
const SELDOM: Duration = Duration::from_secs(1);

/// Walks, within its part of the time.
pub(super) struct Walks {
    owners: Mapped<Chunk<u32>>,
    flags: KernelPages,
    spent: Duration,
    /// What the last one took, and when it was.
    took: Duration,
    last_at: Duration,
    /// The highest that was needed then, in pages.
    needed: u64,
    words: Vec<u64>,
}

impl Walks {
    pub(super) fn new(engine: &Engine) -> Result<Self> {
        Ok(Self {
            owners: engine.owners()?,
            flags: KernelPages::flags()?,
            spent: Duration::ZERO,
            took: Duration::ZERO,
            last_at: Duration::ZERO,
            needed: 0,
            words: vec![0; CHUNK_PAGES as usize],
        })
    }

    /// Whether it is time for one, with so many pages needed.
    pub(super) fn is_due(&self, at: Duration, needed: u64) -> bool {
        let is_peak = needed > self.needed + self.needed / 50;
        let is_late = at.saturating_sub(self.last_at) >= SELDOM;
        (is_peak || is_late) && self.spent + self.took <= CREDIT + at / PART
    }

    /// Looks at the pages of the cgroup with counter `index` and of those below it, and enters what they are.
    pub(super) fn walk(
        &mut self,
        engine: &Engine,
        index: u32,
        at: Duration,
        needed: u64,
        into: &mut Beside,
    ) -> Result<()> {
        let begun = Instant::now();
        let ours = below(engine, index);
        let (mut dirty, mut mlocked, mut shmem) = (0, 0, 0);
        for number in 0..self.owners.len() {
            let Some(chunk) = self.owners.get(number) else { break };
            let Some((first, last)) = chunk.span(&ours) else { continue };
            let pfn = number as u64 * u64::from(CHUNK_PAGES) + first as u64;
            let words = &mut self.words[..=last - first];
            let count = self.flags.read(pfn, words)?;
            for (entry, &flags) in chunk.owners[first..=last].iter().zip(&words[..count]) {
                if is_of(*entry, &ours) {
                    dirty += u64::from(entry & FILE != 0 && Kind::is_dirty(flags));
                    mlocked += u64::from(Kind::is_locked(flags));
                    shmem += u64::from(Kind::of(flags) == Kind::Shared);
                }
            }
        }
        (into.dirty, into.mlocked, into.shmem) = (dirty, mlocked, shmem);
        self.took = begun.elapsed();
        self.spent += self.took;
        (self.last_at, self.needed) = (at, needed.max(self.needed));
        Ok(())
    }
}

/// Which counters are those of a cgroup and of the ones below it.
fn below(engine: &Engine, index: u32) -> Vec<bool> {
    let counters = engine.counters();
    let mut ours = vec![false; engine.max_cgroups() as usize];
    for &own in counters.keys() {
        let mut at = own;
        // A bound, should a counter be its own ancestor: what is read may be changing.
        for _ in 0..MAX_DEPTH {
            if at == index
                && let Some(is_ours) = ours.get_mut(own as usize)
            {
                *is_ours = true;
            }
            let Some(counter) = counters.get(&at) else { break };
            at = index_of(counter.parent as u32);
        }
    }
    ours
}
