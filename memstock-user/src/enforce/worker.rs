//! The threads that settle cgroups at their limits, one cgroup at a time each. One that hangs, in a call into the kernel
//! or under a debugger, costs its own cgroup only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use memstock_common::Event;
use rustix::fd::OwnedFd;
use tokio::sync::mpsc::UnboundedSender;

use super::Policy;
use super::duty::News;
use super::guard::Guard;
use super::hold::Writes;
use super::reclaim::Cache;
use super::settle::{Outcome, settle};
use crate::cgroup::CgroupMount;
use crate::engine::Engine;
use crate::host;
use crate::journal::Record;

/// What all of them use.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) mount: CgroupMount,
    pub(super) cache: Cache,
    /// Takes what was done.
    pub(super) news: UnboundedSender<News>,
    /// Wakes who reads.
    pub(super) wake: OwnedFd,
}

impl Shared {
    pub(super) fn say(&self, record: Record) {
        let _ = self.news.send(News::Record(Box::new(record)));
    }

    pub(super) fn fail(&self, error: anyhow::Error) {
        let _ = self.news.send(News::Failed(error));
    }

    pub(super) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// What is above a limit.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum What {
    /// More than page cache: somebody may have to die for it.
    Needed,
    /// Page cache: that can take its time, and nobody dies for it.
    Cache,
}

/// A cgroup to be settled.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Its counter.
    pub(super) index: u32,
    /// The limit that was met; `ancestor_id` is the cgroup.
    pub(super) hit: Event,
    pub(super) what: What,
    /// What may be done.
    pub(super) policy: Policy,
    /// What lets go of it if we do not; none when nothing is ever held.
    pub(super) guard: Option<Arc<Guard>>,
    /// Another worker hangs over it: what may have been why is left out.
    pub(super) kills_only: bool,
    /// That there is nobody to kill was said already.
    pub(super) has_told: bool,
    /// Set when it is not wanted any more.
    pub(super) is_over: Arc<AtomicBool>,
}

impl Job {
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// When a worker began what it does now, ns since boot.
#[derive(Debug, Default)]
pub(super) struct Step(AtomicU64);

impl Step {
    pub(super) fn begin(&self) {
        self.0.store(host::now_ns(), Ordering::Relaxed);
    }

    fn lasts(&self) -> Duration {
        Duration::from_nanos(host::now_ns().saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

/// A job that was done.
pub(super) struct Done {
    /// By which worker.
    pub(super) worker: usize,
    /// Of which cgroup, and what.
    pub(super) key: (u64, What),
    pub(super) outcome: Outcome,
}

/// One of them.
pub(super) struct Worker {
    jobs: Sender<Job>,
    step: Arc<Step>,
    /// Whether it has a job.
    pub(super) is_busy: bool,
}

impl Worker {
    /// Starts the worker number `number`; it ends when this is dropped and it has nothing to do.
    pub(super) fn start(shared: &Arc<Shared>, number: usize, done: Sender<Done>) -> Result<Self> {
        let (jobs, orders) = channel::<Job>();
        let (step, writes) = (Arc::new(Step::default()), Writes::new()?);
        let (shared, of) = (Arc::clone(shared), Arc::clone(&step));
        let work = move || {
            be_prompt();
            while let Ok(job) = orders.recv() {
                let outcome = settle(&shared, &job, &of, &writes).unwrap_or_else(|error| {
                    shared.fail(error.context("a limit is not enforced"));
                    Outcome::Failed
                });
                let key = (job.hit.ancestor_id, job.what);
                if done.send(Done { worker: number, key, outcome }).is_err() {
                    break;
                }
                shared.wake();
            }
        };
        let thread = thread::Builder::new().name(format!("enforce-{number}")).spawn(work);
        thread.context("cannot start a thread")?;
        Ok(Self { jobs, step, is_busy: false })
    }

    /// Has it do a job. It has none.
    pub(super) fn take(&mut self, job: Job) -> Result<()> {
        self.step.begin();
        self.is_busy = true;
        self.jobs.send(job).ok().context("a thread that enforces limits has ended")
    }

    /// For how long it has been at one step of its job.
    pub(super) fn lasts(&self) -> Duration {
        if self.is_busy { self.step.lasts() } else { Duration::ZERO }
    }
}

/// Has this thread run before everything that is not real-time: the tasks at a limit keep all CPUs busy,
/// and charge by force until it has run.
pub(super) fn be_prompt() {
    let flags = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    if let Err(error) = schedule(flags, 1) {
        log::warn!("limits are enforced late on a busy host: no real-time priority: {error}");
    }
}

/// Has it run as others do.
pub(super) fn be_patient() {
    // Cannot fail: to give up a priority is everybody's right.
    let _ = schedule(libc::SCHED_OTHER, 0);
}

fn schedule(policy: i32, sched_priority: i32) -> std::io::Result<()> {
    let param = libc::sched_param { sched_priority };
    // SAFETY: `param` lives until the call returns, which changes this thread's scheduling only.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const param) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
