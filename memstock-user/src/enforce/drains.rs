//! Decides which stocks are drained and in which order, and makes the receipt of each drain. The kernel half does the
//! draining.
//!
//! `memstock drain` is synchronous: [`drain_cpus`] returns when each stock has been drained once since the call. The
//! daemon's own drains ([`Drains`]) proceed CPU by CPU between its other work; a request is merged into one for the
//! same stocks that is waiting or running, like the patch's `memcg_drain_count`.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::Result;
use memstock_common::NO_INDEX;

use crate::engine::Engine;
use crate::host;
use crate::host::cgroup::CgroupMount;
use crate::journal::Record;
use crate::journal::record::{Cgroup, Why, by_cpu, nanos};

/// What a drain did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The reason.
    pub why: Why,
    /// The cgroup whose subtree was drained; `None` for every cgroup.
    pub cgroup: Option<Cgroup>,
    /// Pages given back by each drained CPU.
    pub cpus: BTreeMap<u32, u64>,
    /// Time from the first stock to the last.
    pub took: Duration,
    /// Time from the kernel's event to the last stock, if an event was the reason.
    pub since_event: Option<Duration>,
    /// Further requests that this drain served.
    pub merged: u64,
}

impl Receipt {
    /// Pages given back by all CPUs together.
    pub fn nr_pages(&self) -> u64 {
        self.cpus.values().sum()
    }
}

impl From<Receipt> for Record {
    fn from(receipt: Receipt) -> Self {
        let nr_pages = receipt.nr_pages();
        let Receipt { why, cgroup, cpus, took, since_event, merged } = receipt;
        Self::Drain {
            why,
            cgroup,
            cpus: by_cpu(&cpus),
            nr_pages,
            took_ns: nanos(took),
            since_event_ns: since_event.map(nanos),
            merged,
        }
    }
}

/// Drains what `cpus` have stocked for the subtree of the counter `subtree` ([`NO_INDEX`] for every cgroup), and
/// returns the pages that each gave back.
///
/// Synchronous: each of these stocks and uncharge batches has held no page of the subtree at some moment since the
/// call. What running tasks have stocked since then stays.
///
/// # Errors
/// There is no such CPU.
pub fn drain_cpus(
    engine: &Engine,
    cpus: impl IntoIterator<Item = u32>,
    subtree: u32,
) -> Result<BTreeMap<u32, u64>> {
    cpus.into_iter().map(|cpu| Ok((cpu, drain_cpu(engine, cpu, subtree)?))).collect()
}

fn drain_cpu(engine: &Engine, cpu: u32, subtree: u32) -> Result<u64> {
    let mut nr_pages = 0;
    for slot in 0..engine.info().slots {
        nr_pages += u64::from(engine.control().drain(cpu, slot, subtree)?);
    }
    Ok(nr_pages)
}

/// Drains `cpus` `times` times on request: the stocks of one cgroup's subtree, given with its counter index, or all.
///
/// # Errors
/// There is no such CPU.
pub fn asked(
    engine: &Engine,
    cpus: &[u32],
    subtree: Option<(Cgroup, u32)>,
    times: u32,
) -> Result<Receipt> {
    let (cgroup, index) = subtree.map_or((None, NO_INDEX), |(cgroup, index)| (Some(cgroup), index));
    let start = Instant::now();
    let mut given = BTreeMap::<u32, u64>::new();
    for _ in 0..times {
        for (cpu, nr_pages) in drain_cpus(engine, cpus.iter().copied(), index)? {
            *given.entry(cpu).or_default() += nr_pages;
        }
    }
    let (why, took) = (Why::Asked, start.elapsed());
    Ok(Receipt { why, cgroup, cpus: given, took, since_event: None, merged: 0 })
}

/// Drains the CPUs that are offline: they may have gone offline while the kernel half was not attached.
///
/// Includes CPUs that are possible but not present: an unplugged CPU leaves its stock behind, too.
///
/// # Errors
/// The CPU lists cannot be read, or the kernel refuses.
pub fn drain_offline(engine: &Engine) -> Result<Receipt> {
    let online = host::cpus()?.online;
    let start = Instant::now();
    let offline = engine.possible().iter().copied().filter(|cpu| !online.contains(cpu));
    let cpus = drain_cpus(engine, offline, NO_INDEX)?;
    let took = start.elapsed();
    Ok(Receipt { why: Why::CpuDead, cgroup: None, cpus, took, since_event: None, merged: 0 })
}

/// A drain that is waiting or running.
#[derive(Debug)]
struct Request {
    subtree: u32,
    /// Time of the first event that asked for it, ns since boot.
    event_ns: u64,
    start: Option<Instant>,
    receipt: Receipt,
}

/// The daemon's queue of drains. The first one is running, one CPU at a time.
#[derive(Debug, Default)]
struct Queue(VecDeque<Request>);

impl Queue {
    /// Adds a request, or merges it into one that covers it.
    fn push(&mut self, why: Why, subtree: u32, cgroup: Option<Cgroup>, event_ns: u64) {
        let covers = |one: &&mut Request| [subtree, NO_INDEX].contains(&one.subtree);
        if let Some(one) = self.0.iter_mut().find(covers) {
            one.receipt.merged += 1;
            return;
        }
        let (cpus, took) = (BTreeMap::new(), Duration::ZERO);
        let receipt = Receipt { why, cgroup, cpus, took, since_event: None, merged: 0 };
        self.0.push_back(Request { subtree, event_ns, start: None, receipt });
    }
}

/// The daemon's own drains, asynchronous.
pub struct Drains<'a> {
    engine: &'a Engine,
    mount: &'a CgroupMount,
    queue: Queue,
}

impl<'a> Drains<'a> {
    /// Starts with an empty queue.
    pub fn new(engine: &'a Engine, mount: &'a CgroupMount) -> Self {
        Self { engine, mount, queue: Queue::default() }
    }

    /// Queues a drain of all stocks because the kernel began to reclaim memory at `event_ns`.
    pub fn reclaim_began(&mut self, event_ns: u64) {
        self.queue.push(Why::Reclaim, NO_INDEX, None, event_ns);
    }

    /// Queues a drain of the subtree of `ancestor` because it is near its limit.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn limit_near(&mut self, ancestor: u64, event_ns: u64) -> Result<()> {
        // It is `None` if the cgroup, and its limit, were removed meanwhile.
        if let Some(index) = self.engine.index_of(ancestor)? {
            let cgroup = Cgroup::new(ancestor, self.mount.path_of(ancestor).as_deref());
            self.queue.push(Why::LimitNear, index, Some(cgroup), event_ns);
        }
        Ok(())
    }

    /// Whether there is something to drain.
    pub fn is_due(&self) -> bool {
        !self.queue.0.is_empty()
    }

    /// Drains the next CPU of the first request; returns its receipt if that was the last CPU.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn step(&mut self) -> Result<Option<Receipt>> {
        let Some(first) = self.queue.0.front_mut() else { return Ok(None) };
        let start = *first.start.get_or_insert_with(Instant::now);
        let done = &mut first.receipt.cpus;
        // CPUs are drained in list order, so the number done is the position of the next.
        if let Some(&cpu) = self.engine.possible().get(done.len()) {
            done.insert(cpu, drain_cpu(self.engine, cpu, first.subtree)?);
        }
        if done.len() < self.engine.possible().len() {
            return Ok(None);
        }
        let took = start.elapsed();
        let since = host::now_ns().saturating_sub(first.event_ns);
        Ok(self.queue.0.pop_front().map(|Request { receipt, .. }| Receipt {
            took,
            since_event: Some(Duration::from_nanos(since)),
            ..receipt
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_merged_into_one_that_covers_it() {
        let mut queue = Queue::default();
        queue.push(Why::LimitNear, 3, Some(Cgroup::new(1, Some("/a".as_ref()))), 10);
        queue.push(Why::LimitNear, 3, Some(Cgroup::new(1, Some("/a".as_ref()))), 20);
        queue.push(Why::LimitNear, 4, Some(Cgroup::new(2, Some("/b".as_ref()))), 30);
        queue.push(Why::Reclaim, NO_INDEX, None, 40);
        queue.push(Why::LimitNear, 5, Some(Cgroup::new(3, Some("/c".as_ref()))), 50);
        queue.push(Why::Reclaim, NO_INDEX, None, 60);
        let seen: Vec<_> =
            queue.0.iter().map(|one| (one.subtree, one.event_ns, one.receipt.merged)).collect();
        assert_eq!(seen, [(3, 10, 1), (4, 30, 0), (NO_INDEX, 40, 2)]);
    }
}
