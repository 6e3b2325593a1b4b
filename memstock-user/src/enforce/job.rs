//! The job of a worker, what all workers share, and what they report.

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

/// A message to the daemon's loop.
#[derive(Debug)]
pub enum Message {
    /// An event of the kernel half.
    Event(Decoded),
    /// A record of something done at a limit.
    Record(Box<Record>),
    /// An event of the kernel half that cannot be decoded.
    Unreadable(anyhow::Error),
    /// A limit could not be enforced, or not in time.
    Failed(anyhow::Error),
}

/// Shared by the enforcer and all workers.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) mount: CgroupMount,
    pub(super) cache: Cache,
    /// Messages to the daemon's loop.
    pub(super) messages: UnboundedSender<Message>,
    /// Wakes the enforcer.
    pub(super) wake: OwnedFd,
}

impl Shared {
    pub(super) fn say(&self, record: Record) {
        let _ = self.messages.send(Message::Record(Box::new(record)));
    }

    pub(super) fn fail(&self, error: anyhow::Error) {
        let _ = self.messages.send(Message::Failed(error));
    }

    pub(super) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// What is above a limit.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum What {
    /// More than page cache: a task may have to be killed for it.
    Needed,
    /// Page cache: not urgent, and nobody is killed for it.
    Cache,
}

/// A full cgroup to settle.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Its counter index.
    pub(super) index: u32,
    /// The limit that was hit; `ancestor_id` is the cgroup.
    pub(super) hit: Event,
    pub(super) what: What,
    /// What may be done.
    pub(super) policy: Policy,
    /// Ends the hold if we do not; `None` if nothing is ever held.
    pub(super) guard: Option<Arc<Guard>>,
    /// Another worker hangs while settling it: skip the steps that may have caused that.
    pub(super) kills_only: bool,
    /// Whether it was already reported that there is nobody to kill.
    pub(super) reported_no_victim: bool,
    /// Set when the job is cancelled.
    pub(super) is_over: Arc<AtomicBool>,
}

impl Job {
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// When a worker began its current step, ns since boot.
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

/// Gives this thread real-time priority: until it runs, the tasks at a limit may keep all CPUs busy and are charged by
/// force.
pub(super) fn set_realtime() {
    let flags = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    if let Err(error) = schedule(flags, 1) {
        log::warn!("limits are enforced late on a busy host: no real-time priority: {error}");
    }
}

/// Returns to normal priority.
pub(super) fn set_normal_priority() {
    // A system-call filter may refuse this, and so does the kernel without CAP_SYS_NICE, since SCHED_RESET_ON_FORK was
    // set.
    if let Err(error) = schedule(libc::SCHED_OTHER, 0) {
        log::warn!("reclaim of page cache keeps real-time priority: {error}");
    }
}

fn schedule(policy: i32, sched_priority: i32) -> std::io::Result<()> {
    let param = libc::sched_param { sched_priority };
    // SAFETY: `param` lives until the call returns, which changes this thread's scheduling only.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const param) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
