//! Makes room in a subtree without killing anybody: drains its stocks, reclaims, looks again. The patch's
//! rounds in `mem_cgroup_charge`; also what `memstock limit` and `memstock force-empty` do.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use memstock_common::counter::needed_above;
use memstock_common::{Counter, Resource};

use super::reclaim::{MEANS, Wish, reclaim};
use crate::cgroup::Cgroup;
use crate::drains::{Receipt, drain_cpus};
use crate::engine::Engine;
use crate::journal::Record;
use crate::journal::record::{Why, named, nanos};
use crate::needed::{InFlight, Need};

/// Rounds of drain and reclaim: `MEM_CGROUP_RECLAIM_RETRIES` in the patch.
pub const ROUNDS: u32 = 5;

/// Pages that are too many, and of what; `None` when there is room.
pub type Excess = Option<(u64, Resource)>;

/// By how many pages the usage is above what `memory` and `memsw` allow, beside what huge pages may be above them.
/// Memory+swap first: what is reclaimed for it must not go to swap.
pub fn excess(counter: &Counter<u64>, memory: u64, memsw: u64) -> Excess {
    needed_excess(&Counter { file: 0, ..*counter }, memory, memsw)
}

/// By how many pages what is needed is above that: the kernel kills for nothing else. Stocks must have been drained, or
/// what is in them counts as needed.
pub fn needed_excess(counter: &Counter<u64>, memory: u64, memsw: u64) -> Excess {
    let above = |usage, limit, resource| {
        let nr_pages = needed_above(usage, counter.file, limit, counter.huge);
        (nr_pages > 0).then_some((nr_pages, resource))
    };
    let memsw = above(counter.memsw.usage, memsw, Resource::Memsw);
    memsw.or_else(|| above(counter.memory.usage, memory, Resource::Memory))
}

/// That page cache of a cgroup is above its limit, which nothing here could take back.
pub fn cache_over_limit(cgroup: &Cgroup, counter: &Counter<u64>, over: u64) -> Record {
    let Need { file, needed } = Need::of(counter, InFlight::default());
    Record::CacheOverLimit {
        ancestor: named(cgroup),
        over_pages: over,
        needed_pages: needed,
        file_pages: file,
    }
}

/// A subtree in which room is made.
pub struct Room<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The cgroup.
    pub cgroup: &'a Cgroup,
    /// Its counter.
    pub index: u32,
}

impl Room<'_> {
    /// Drains and reclaims until `excess` says that there is room, or nothing is gained any more; says
    /// which of the two.
    ///
    /// # Errors
    /// The engine cannot be read or driven.
    pub fn make(
        &self,
        say: &mut impl FnMut(Record),
        excess: impl Fn(&Counter<u64>) -> Excess,
    ) -> Result<bool> {
        for _ in 0..ROUNDS {
            let drained = self.drain(say)?;
            let Some((over, resource)) = excess(&self.engine.counter(self.index)?) else {
                return Ok(true);
            };
            let gained = self.reclaim(say, over, resource)?;
            if excess(&self.engine.counter(self.index)?).is_none() {
                return Ok(true);
            }
            if drained + gained == 0 {
                break;
            }
        }
        Ok(false)
    }

    /// Gives back what is stocked for the subtree; says how many pages that were.
    ///
    /// # Errors
    /// The engine cannot be driven.
    pub fn drain(&self, say: &mut impl FnMut(Record)) -> Result<u64> {
        let start = Instant::now();
        let drained = self.drained()?;
        let nr_pages = drained.values().sum();
        if nr_pages > 0 {
            say(Receipt {
                why: Why::LimitHit,
                cgroup: Some(named(self.cgroup)),
                cpus: drained,
                took: start.elapsed(),
                since_event: None,
                merged: 0,
            }
            .into());
        }
        Ok(nr_pages)
    }

    fn drained(&self) -> Result<BTreeMap<u32, u64>> {
        drain_cpus(self.engine, self.engine.possible().iter().copied(), self.index)
    }

    /// Tries one means after the other until one gains something; says how many pages it gained.
    fn reclaim(&self, say: &mut impl FnMut(Record), over: u64, resource: Resource) -> Result<u64> {
        // More than is needed, or the next batch would be here again.
        let spare = u64::from(self.engine.info().batch) * self.engine.possible().len() as u64;
        let wish = Wish { nr_pages: over + spare, may_swap: resource == Resource::Memory };
        for means in MEANS {
            let (start, before) = (Instant::now(), self.usage()?);
            match reclaim(means, self.cgroup, wish) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    log::warn!("reclaim by {means:?}: {error:#}");
                    continue;
                }
            }
            // What was freed may be in a stock by now.
            self.drained()?;
            let gained = before.saturating_sub(self.usage()?);
            say(Record::Reclaim {
                cgroup: named(self.cgroup),
                means,
                tried_pages: wish.nr_pages,
                gained_pages: gained,
                took_ns: nanos(start.elapsed()),
            });
            if gained > 0 {
                return Ok(gained);
            }
        }
        Ok(0)
    }

    fn usage(&self) -> Result<u64> {
        Ok(self.engine.counter(self.index)?.memory.usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memstock_common::{NO_LIMIT, PageCounter};

    #[test]
    fn memory_and_swap_comes_first() {
        let usage = |usage| PageCounter { usage, ..PageCounter::default() };
        let counter = Counter { memory: usage(10), memsw: usage(12), ..Counter::default() };
        assert_eq!(excess(&counter, 10, 12), None);
        assert_eq!(excess(&counter, 9, NO_LIMIT), Some((1, Resource::Memory)));
        assert_eq!(excess(&counter, 0, 10), Some((2, Resource::Memsw)));
    }

    #[test]
    fn page_cache_is_not_needed() {
        let usage = |usage| PageCounter { usage, ..PageCounter::default() };
        let counter =
            Counter { memory: usage(10), memsw: usage(12), file: 4, ..Counter::default() };
        assert_eq!(needed_excess(&counter, 6, 8), None);
        assert_eq!(needed_excess(&counter, 5, NO_LIMIT), Some((1, Resource::Memory)));
        assert_eq!(needed_excess(&counter, 5, 7), Some((1, Resource::Memsw)));
        let huge = Counter { huge: 1, ..counter };
        assert_eq!(needed_excess(&huge, 5, 7), None);
        // What went may be told before what came.
        let early = Counter { file: u64::MAX, ..counter };
        assert_eq!(needed_excess(&early, 9, NO_LIMIT), Some((1, Resource::Memory)));
    }
}
