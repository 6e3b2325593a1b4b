//! Knows which cgroups are full and which worker has each. Never blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use memstock_common::{Counter, Event, Resource};

use super::Policy;
use super::guard::{Guard, this_program};
use super::job::{Job, Shared, What};
use super::setting::Limits;
use super::settle::{Outcome, needs_more, over_limit};
use super::worker::{Done, Worker};
use crate::host;

/// Pause before the next attempt when nothing could be done; doubled each time.
const BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// Interval between two searches for cgroups above their limit that no event announced.
const LOOK: Duration = Duration::from_secs(1);
/// A worker that takes longer over one step hangs: each step is bounded by less.
const HANGS: Duration = Duration::from_secs(4);

/// Stands for the counts of refused charges when another attempt is due whether or not more is charged.
const NEVER: [u64; 2] = [u64::MAX; 2];

/// The cgroups at their limits, and the workers.
pub(super) struct Dispatch {
    shared: Arc<Shared>,
    policy: Policy,
    guard: Option<Arc<Guard>>,
    /// By id and what is above the limit, so that reclaiming page cache delays no kill.
    full: BTreeMap<(u64, What), Full>,
    workers: Vec<Worker>,
    done: Receiver<Done>,
    sender: Sender<Done>,
    looked: Instant,
}

/// A cgroup that is or was at its limit.
struct Full {
    worker: Option<usize>,
    is_over: Arc<AtomicBool>,
    /// A worker that hangs while settling it.
    hangs: Option<usize>,
    not_before: Instant,
    backoff: Duration,
    /// Its limits and counts of refused charges at the last look.
    seen: (Limits, [u64; 2]),
    /// Whether it was reported that nobody may be killed.
    reported_no_victim: bool,
}

impl Full {
    fn new(limits: Limits) -> Self {
        Self {
            worker: None,
            is_over: Arc::new(AtomicBool::new(false)),
            hangs: None,
            not_before: Instant::now(),
            backoff: BACKOFF / 2,
            seen: (limits, NEVER),
            reported_no_victim: false,
        }
    }
}

fn seen(counter: &Counter<u64>) -> (Limits, [u64; 2]) {
    (Limits::of(counter), [counter.memory.failcnt, counter.memsw.failcnt])
}

impl Dispatch {
    pub(super) fn new(shared: Arc<Shared>, policy: Policy, guard: Option<Guard>) -> Self {
        let (sender, done) = channel();
        let guard = guard.map(Arc::new);
        let (full, workers, looked) = (BTreeMap::new(), Vec::new(), Instant::now());
        let mut this = Self { shared, policy, guard, full, workers, done, sender, looked };
        this.have_spare();
        this
    }

    /// Continues with another policy.
    pub(super) fn set_policy(&mut self, policy: Policy, guard: Option<Guard>) {
        self.policy = policy;
        self.guard = guard.map(Arc::new);
        self.end();
        // What failed before may be possible now.
        self.full.values_mut().for_each(|full| {
            let Full { worker, hangs, seen, .. } = *full;
            *full = Full { worker, hangs, ..Full::new(seen.0) };
        });
    }

    /// Tells all workers to stop as soon as they can.
    pub(super) fn end(&mut self) {
        self.full.values().for_each(|full| full.is_over.store(true, Ordering::Relaxed));
    }

    /// Whether no worker is busy, except hung ones.
    pub(super) fn is_idle(&mut self) -> bool {
        self.reap();
        self.workers.iter().all(|worker| !worker.is_busy || worker.lasts() > HANGS)
    }

    /// Whether anything is enforced.
    pub(super) fn enforces(&self) -> bool {
        !self.policy.observe
    }

    /// Assigns the cgroup whose limit was hit.
    pub(super) fn hit(&mut self, hit: &Event) -> Result<()> {
        let Some(index) = self.shared.engine.index_of(hit.ancestor_id)? else { return Ok(()) };
        let counter = self.shared.engine.counter(index)?;
        self.assign(index, &counter, *hit)
    }

    /// Periodic work; call it several times a second.
    pub(super) fn turn(&mut self) {
        self.reap();
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        self.replace_hung();
        self.mend_guard();
        if self.enforces() {
            self.look();
        }
    }

    /// Gives the cgroup a worker, unless it has one or its backoff is not over.
    fn assign(&mut self, index: u32, counter: &Counter<u64>, hit: Event) -> Result<()> {
        let now = seen(counter);
        let is_cache = self.enforces() && !needs_more(counter);
        let what = if is_cache { What::Cache } else { What::Needed };
        let key = (hit.ancestor_id, what);
        let full = self.full.entry(key).or_insert_with(|| Full::new(now.0));
        if full.worker.is_some() {
            return Ok(());
        }
        // Changed limits start afresh.
        if full.seen.0 != now.0 {
            *full = Full { hangs: full.hangs, ..Full::new(now.0) };
        }
        if Instant::now() < full.not_before {
            return Ok(());
        }
        full.is_over = Arc::new(AtomicBool::new(false));
        let job = Job {
            index,
            hit,
            what,
            policy: self.policy,
            guard: self.guard.clone(),
            kills_only: full.hangs.is_some(),
            reported_no_victim: full.reported_no_victim,
            is_over: Arc::clone(&full.is_over),
        };
        let Some(number) = self.workers.iter().position(|worker| !worker.is_busy) else {
            // The next periodic look finds it again.
            self.have_spare();
            return Ok(());
        };
        self.workers[number].take(job)?;
        if let Some(full) = self.full.get_mut(&key) {
            full.worker = Some(number);
        }
        self.have_spare();
        Ok(())
    }

    /// Keeps a worker idle: starting a thread takes time that the next full cgroup may not have.
    fn have_spare(&mut self) {
        if self.workers.iter().any(|worker| !worker.is_busy) {
            return;
        }
        match Worker::start(&self.shared, self.workers.len(), self.sender.clone()) {
            Ok(worker) => self.workers.push(worker),
            Err(error) => self.shared.fail(error.context("limits are enforced late")),
        }
    }

    /// Collects the results of workers.
    fn reap(&mut self) {
        while let Ok(Done { worker, key, outcome }) = self.done.try_recv() {
            self.workers[worker].is_busy = false;
            let Some(full) = self.full.get_mut(&key) else { continue };
            if full.hangs == Some(worker) {
                full.hangs = None;
            }
            if full.worker != Some(worker) {
                continue;
            }
            full.worker = None;
            let found = self.shared.engine.find(key.0);
            let found =
                found.inspect_err(|error| log::warn!("looking up a full cgroup: {error:#}"));
            let Ok(Some((index, counter))) = found else {
                self.full.remove(&key);
                continue;
            };
            full.reported_no_victim = outcome == Outcome::NoVictim;
            let (backoff, rests) = match outcome {
                Outcome::Room | Outcome::Fruitless | Outcome::Observed(false) => {
                    (BACKOFF / 2, false)
                }
                Outcome::Observed(true) => (BACKOFF, true),
                Outcome::Over | Outcome::NoVictim | Outcome::Failed => {
                    ((2 * full.backoff).min(LONGEST_BACKOFF), true)
                }
            };
            full.backoff = backoff;
            if rests {
                full.not_before = Instant::now() + backoff;
            }
            full.seen = seen(&counter);
            if matches!(outcome, Outcome::Failed | Outcome::Room) {
                // Its tasks may have stopped charging, so no further event would come; or its limit may be lifted
                // and set once more.
                full.seen.1 = NEVER;
            }
            // Charges made while it was being settled sent no event.
            if self.enforces() && outcome == Outcome::Room {
                self.assign_if_over(index, &counter);
            }
        }
    }

    /// Assigns cgroups above their limit that were charged since they were last settled, or whose limit changed.
    fn look(&mut self) {
        for (index, counter) in self.shared.engine.counters().iter() {
            let what = if needs_more(counter) { What::Needed } else { What::Cache };
            let full = self.full.get(&(counter.id, what));
            if full.is_none_or(|full| full.seen != seen(counter)) {
                self.assign_if_over(index, counter);
            }
        }
        let engine = &self.shared.engine;
        let is_within = |index| engine.counter(index).is_ok_and(|it| over_limit(&it).is_none());
        self.full.retain(|&(id, _), full| match engine.index_of(id) {
            Ok(None) => full.worker.is_some(),
            Ok(Some(index)) if is_within(index) => {
                // If it is over the same limit once more, that is new.
                full.seen.1 = NEVER;
                true
            }
            Ok(Some(_)) | Err(_) => true,
        });
    }

    fn assign_if_over(&mut self, index: u32, counter: &Counter<u64>) {
        let Some((over, resource)) = over_limit(counter) else { return };
        let (usage, limit) = match resource {
            Resource::Memory => (counter.memory.usage, counter.memory_limit),
            Resource::Memsw => (counter.memsw.usage, counter.memsw_limit),
        };
        let hit = Event {
            kind: memstock_common::event::EventKind::LimitHit as u32,
            resource: resource as u32,
            time_ns: host::now_ns(),
            cgroup_id: counter.id,
            ancestor_id: counter.id,
            nr_pages: over,
            usage,
            limit,
            cpu: 0,
        };
        if let Err(error) = self.assign(index, counter, hit) {
            self.shared.fail(error);
        }
    }

    /// Abandons hung workers; another worker takes over and only kills.
    fn replace_hung(&mut self) {
        let mut hung = Vec::new();
        for (&key, full) in &mut self.full {
            let Some(number) = full.worker else { continue };
            if key.1 == What::Needed && full.hangs.is_none() && self.workers[number].lasts() > HANGS
            {
                (full.hangs, full.worker) = (Some(number), None);
                full.is_over.store(true, Ordering::Relaxed);
                hung.push(key);
            }
        }
        for key in hung {
            let name = self.shared.mount.path_of(key.0).map(crate::host::cgroup::display);
            let name = name.unwrap_or_else(|| format!("cgroup {}", key.0));
            self.shared.fail(anyhow!(
                "{name} is at its limit and its reclaim hangs: another thread only kills"
            ));
            if let Some(full) = self.full.get_mut(&key) {
                full.seen.1 = NEVER;
            }
        }
    }

    fn mend_guard(&mut self) {
        if self.guard.as_ref().is_none_or(|guard| guard.is_alive()) {
            return;
        }
        self.shared.fail(anyhow!("the guard has ended: starting another"));
        match this_program().and_then(|program| Guard::start(&program)) {
            Ok(guard) => self.guard = Some(Arc::new(guard)),
            Err(error) => self.shared.fail(error),
        }
    }
}
