//! Walks the flags of a cgroup's pages to count the dirty, locked and shared ones; rarely, since it takes some 0.4 µs a
//! page. Does not decide what is recorded.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use anyhow::Result;
use memstock_common::Chunk;
use memstock_common::file::FILE;
use memstock_common::page::CHUNK_PAGES;
use memstock_common::record::is_of;

use super::usage::Beside;
use crate::engine::Engine;
use crate::engine::mapped::Mapped;
use crate::engine::needed::lineage;
use crate::host::pace::{cpu_time, spent_since};
use crate::host::pages::{KernelPages, Kind};

/// CPU time that walks may take in advance of their share.
const CREDIT: Duration = Duration::from_millis(100);
/// Walks may take one part in so many of the time.
const PART: u32 = 100;
/// The interval between two walks while there is no new peak.
const SELDOM: Duration = Duration::from_secs(1);

/// Up to this many pages of others are read rather than making another system call.
const GAP: usize = 8;

/// Walks the pages within its share of the time, and once more at the end.
pub(super) struct Walks {
    owners: Mapped<Chunk<u32>>,
    flags: KernelPages,
    spent: Duration,
    /// CPU time of the last walk, and when it was.
    took: Duration,
    last_at: Duration,
    /// The highest need at any walk so far, in pages.
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

    /// Whether a walk is due, with so many pages needed.
    pub(super) fn is_due(&self, at: Duration, needed: u64) -> bool {
        let is_peak = needed > self.needed + self.needed / 50;
        let is_late = at.saturating_sub(self.last_at) >= SELDOM;
        (is_peak || is_late) && self.spent + self.took <= CREDIT + at / PART
    }

    /// Counts the dirty, locked and shared pages of the cgroup with counter `index` and of those below it.
    pub(super) fn walk(
        &mut self,
        engine: &Engine,
        index: u32,
        at: Duration,
        needed: u64,
        into: &mut Beside,
    ) -> Result<()> {
        let begun = cpu_time()?;
        let counted = self.count(&below(engine, index));
        // A walk that fails takes time, too.
        self.took = spent_since(begun)?;
        self.spent += self.took;
        (self.last_at, self.needed) = (at, needed.max(self.needed));
        (into.dirty, into.mlocked, into.shmem) = counted?;
        Ok(())
    }

    /// How many of the pages charged to `ours` are dirty, locked and shared.
    fn count(&mut self, ours: &[bool]) -> Result<(u64, u64, u64)> {
        let (mut dirty, mut mlocked, mut shmem) = (0, 0, 0);
        for number in 0..self.owners.len() {
            let Some(chunk) = self.owners.get(number) else { break };
            let Some((first, last)) = chunk.span(ours) else { continue };
            let pfn = number as u64 * u64::from(CHUNK_PAGES);
            let mut rest = first..=last;
            while let Some(run) = next_run(&chunk, ours, &mut rest) {
                let words = &mut self.words[..run.len()];
                let count = self.flags.read(pfn + run.start as u64, words)?;
                for (&entry, &flags) in chunk.owners[run].iter().zip(&words[..count]) {
                    if is_of(entry, ours) {
                        dirty += u64::from(entry & FILE != 0 && Kind::is_dirty(flags));
                        mlocked += u64::from(Kind::is_locked(flags));
                        shmem += u64::from(Kind::of(flags) == Kind::Shared);
                    }
                }
            }
        }
        Ok((dirty, mlocked, shmem))
    }
}

/// The next run of `rest` to read at once: it begins and ends with a page of ours, with only small gaps between.
fn next_run(
    chunk: &Chunk<u32>,
    ours: &[bool],
    rest: &mut RangeInclusive<usize>,
) -> Option<Range<usize>> {
    let is_ours = |&at: &usize| is_of(chunk.owners[at], ours);
    let last = *rest.end();
    let first = rest.find(is_ours)?;
    let mut end = first + 1;
    while let Some(at) = rest.find(is_ours) {
        if at - end > GAP {
            *rest = at..=last;
            break;
        }
        end = at + 1;
    }
    Some(first..end)
}

/// Which counters belong to a cgroup and those below it.
fn below(engine: &Engine, index: u32) -> Vec<bool> {
    let counters = engine.counters();
    let mut ours = vec![false; engine.max_cgroups() as usize];
    let lineage = |own| lineage(|at| counters.parent(at), own);
    for own in counters.indices().filter(|&own| lineage(own).any(|at| at == index)) {
        if let Some(is_ours) = ours.get_mut(own as usize) {
            *is_ours = true;
        }
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_over_small_gaps_and_miss_nothing() {
        let mut chunk = Chunk { owners: [0; CHUNK_PAGES as usize] };
        for at in [3, 4, 4 + GAP + 1, 500, 501, 900] {
            chunk.owners[at] = 2;
        }
        chunk.owners[700] = 1;
        let ours = [false, true];
        let (first, last) = chunk.span(&ours).unwrap();
        let mut rest = first..=last;
        let runs: Vec<_> = std::iter::from_fn(|| next_run(&chunk, &ours, &mut rest)).collect();
        assert_eq!(runs, [3..4 + GAP + 2, 500..502, 900..901]);
        assert_eq!(chunk.span(&[]), None);
    }
}
