//! What is to be done about a cgroup at its limit, what whoever does it shares, and what they hand on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use memstock_common::Event;
use rustix::fd::OwnedFd;
use tokio::sync::mpsc::UnboundedSender;

use super::Policy;
use super::guard::Guard;
use super::reclaim::Cache;
use crate::engine::Engine;
use crate::host;
use crate::host::cgroup::CgroupMount;
use crate::journal::Record;
use crate::journal::event::Decoded;

/// What is handed on.
#[derive(Debug)]
pub enum News {
    /// An event of the kernel half's.
    Event(Decoded),
    /// Something was done at a limit.
    Record(Box<Record>),
    /// An event of the kernel half's that cannot be read.
    Unreadable(anyhow::Error),
    /// A limit could not be enforced, or not in time.
    Failed(anyhow::Error),
}

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

    pub(super) fn lasts(&self) -> Duration {
        Duration::from_nanos(host::now_ns().saturating_sub(self.0.load(Ordering::Relaxed)))
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
