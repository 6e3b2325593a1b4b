//! Makes room in a subtree without killing anybody: drains its stocks, reclaims, checks again. These are the rounds of
//! `mem_cgroup_charge` in the patch; `memstock limit` and `memstock force-empty` use them, too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use memstock_common::counter::needed_above;
use memstock_common::{Counter, Resource};

use super::reclaim::{Cache, Reclaimed, Request, reclaim};
use crate::enforce::drains::{Receipt, drain_cpus};
use crate::engine::Engine;
use crate::engine::needed::{InFlight, Need};
use crate::host::cgroup::Cgroup;
use crate::journal::Record;
use crate::journal::record::{ReclaimMethod, Why, named, nanos};

/// Rounds of drain and reclaim: `MEM_CGROUP_RECLAIM_RETRIES` in the patch.
pub const ROUNDS: u32 = 5;
/// Time limit while tasks wait. It is only checked between system calls.
pub const SOON: Duration = Duration::from_secs(1);
/// Time limit for background work and for requests by people.
pub const LATER: Duration = Duration::from_secs(5);
/// The excess and 1/16 of the limit are reclaimed, or the next page would exceed the limit again.
const SPARE: u64 = 16;

/// Pages above a limit, and of which resource; `None` when there is room.
pub type Excess = Option<(u64, Resource)>;

/// By how many pages a usage exceeds `memory` or `memsw`: what is needed above it, plus page cache, to which the
/// allowance for huge pages does not apply. Memory+swap comes first: what is reclaimed for it must not go to swap.
pub fn excess(counter: &Counter<u64>, memory: u64, memsw: u64) -> Excess {
    let file = u64::try_from(counter.file.cast_signed()).unwrap_or(0);
    above(counter, memory, memsw, |usage, limit| file.min(usage.saturating_sub(limit)))
}

/// By how many pages what is needed exceeds `memory` or `memsw`: the kernel kills for nothing else. Drain the stocks
/// first, or what is in them counts as needed.
pub fn needed_excess(counter: &Counter<u64>, memory: u64, memsw: u64) -> Excess {
    above(counter, memory, memsw, |_, _| 0)
}

fn above(
    counter: &Counter<u64>,
    memory: u64,
    memsw: u64,
    cache: impl Fn(u64, u64) -> u64,
) -> Excess {
    let above = |usage, limit, resource| {
        let needed = needed_above(usage, counter.file, limit, counter.huge);
        let nr_pages = needed + cache(usage, limit);
        (nr_pages > 0).then_some((nr_pages, resource))
    };
    let memsw = above(counter.memsw.usage, memsw, Resource::Memsw);
    memsw.or_else(|| above(counter.memory.usage, memory, Resource::Memory))
}

/// The record that a cgroup's page cache is above its limit and could not be reclaimed.
pub fn cache_over_limit(cgroup: &Cgroup, counter: &Counter<u64>, over: u64) -> Record {
    let Need { file, needed } = Need::of(counter, InFlight::default());
    Record::CacheOverLimit {
        ancestor: named(cgroup),
        over_pages: over,
        needed_pages: needed,
        file_pages: file,
    }
}

/// A subtree in which to make room.
pub struct Room<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Finds the subtree's page cache.
    pub cache: &'a Cache,
    /// The cgroup.
    pub cgroup: &'a Cgroup,
    /// Its counter index.
    pub index: u32,
    /// How long making room may take: [`SOON`] or [`LATER`].
    pub within: Duration,
}

/// The result of making room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Made {
    /// There is room.
    Room,
    /// There is no room, but something was gained.
    Some,
    /// Nothing was gained.
    Nothing,
}

impl Room<'_> {
    /// Drains, and reclaims by these methods in their order, until `excess` finds room, nothing more is gained, or time
    /// is up.
    ///
    /// # Errors
    /// The engine cannot be read or driven.
    pub fn make(
        &self,
        say: &mut impl FnMut(Record),
        means: &[ReclaimMethod],
        excess: impl Fn(&Counter<u64>) -> Excess,
    ) -> Result<Made> {
        let deadline = Instant::now() + self.within;
        let mut all = 0;
        for _ in 0..ROUNDS {
            let drained = self.drain(say)?;
            let Some((over, resource)) = excess(&self.engine.counter(self.index)?) else {
                return Ok(Made::Room);
            };
            let gained = self.reclaim(say, means, (over, resource), deadline)?;
            if excess(&self.engine.counter(self.index)?).is_none() {
                return Ok(Made::Room);
            }
            all += drained + gained;
            if drained + gained == 0 || Instant::now() > deadline {
                break;
            }
        }
        Ok(if all == 0 { Made::Nothing } else { Made::Some })
    }

    /// Drains the stocks of the subtree; returns the number of pages given back.
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

    /// Tries one method after the other until one gains something; returns the number of pages gained.
    fn reclaim(
        &self,
        say: &mut impl FnMut(Record),
        means: &[ReclaimMethod],
        (over, resource): (u64, Resource),
        deadline: Instant,
    ) -> Result<u64> {
        let counter = self.engine.counter(self.index)?;
        let batches = u64::from(self.engine.info().batch) * self.engine.possible().len() as u64;
        let usage = match resource {
            Resource::Memory => counter.memory.usage,
            Resource::Memsw => counter.memsw.usage,
        };
        // The limit may be one that is yet to be set.
        let limit = usage.saturating_sub(over);
        let request = Request {
            engine: self.engine,
            cache: self.cache,
            cgroup: self.cgroup,
            index: self.index,
            nr_pages: over.saturating_add(batches.max(limit / SPARE)),
            may_swap: resource == Resource::Memory,
            deadline,
        };
        for &means in means {
            let (start, before) = (Instant::now(), self.usage()?);
            let taken = match reclaim(means, &request) {
                Ok(Reclaimed::Nothing) => continue,
                Ok(taken) => taken,
                Err(error) => {
                    log::warn!("reclaim by {means:?}: {error:#}");
                    continue;
                }
            };
            // Freed pages may be in a stock by now.
            self.drained()?;
            let gained = match taken {
                Reclaimed::Pages(nr_pages) => nr_pages,
                _ => before.saturating_sub(self.usage()?),
            };
            say(Record::Reclaim {
                cgroup: named(self.cgroup),
                means,
                tried_pages: request.nr_pages,
                gained_pages: gained,
                took_ns: nanos(start.elapsed()),
            });
            if gained > 0 || Instant::now() > deadline {
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
        // The allowance for huge pages does not apply to page cache.
        assert_eq!(excess(&huge, 8, NO_LIMIT), Some((2, Resource::Memory)));
        assert_eq!(excess(&huge, 5, NO_LIMIT), Some((4, Resource::Memory)));
        assert_eq!(excess(&Counter { file: 0, ..huge }, 9, NO_LIMIT), None);
        assert_eq!(excess(&counter, 0, NO_LIMIT), Some((10, Resource::Memory)));
        // A decrease of `file` may be reported before its increase.
        let early = Counter { file: u64::MAX, ..counter };
        assert_eq!(needed_excess(&early, 9, NO_LIMIT), Some((1, Resource::Memory)));
    }
}
