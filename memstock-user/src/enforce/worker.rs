//! The threads that settle full cgroups, each one cgroup at a time. One that hangs in a system call or under a debugger
//! affects only its own cgroup.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::hold::Writes;
use super::job::{Job, Shared, Step, What, set_realtime};
use super::settle::{Outcome, settle};

/// A finished job.
pub(super) struct Done {
    /// Number of the worker that did it.
    pub(super) worker: usize,
    /// Id of the cgroup, and what was above the limit.
    pub(super) key: (u64, What),
    pub(super) outcome: Outcome,
}

/// A worker thread.
pub(super) struct Worker {
    jobs: Sender<Job>,
    step: Arc<Step>,
    /// Whether it has a job.
    pub(super) is_busy: bool,
}

impl Worker {
    /// Starts worker `number`. It ends once this value is dropped and it has nothing left to do.
    pub(super) fn start(shared: &Arc<Shared>, number: usize, done: Sender<Done>) -> Result<Self> {
        let (jobs, orders) = channel::<Job>();
        let step = Arc::new(Step::default());
        let (shared, of) = (Arc::clone(shared), Arc::clone(&step));
        let work = move || {
            set_realtime();
            let mut writes = None;
            while let Ok(job) = orders.recv() {
                // Without it tasks are not held, but the limit is enforced.
                if writes.is_none() {
                    writes = Writes::new().map_err(|error| shared.fail(error)).ok();
                }
                let outcome = settle(&shared, &job, &of, writes.as_ref()).unwrap_or_else(|error| {
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

    /// Gives it a job. It must be idle.
    pub(super) fn take(&mut self, job: Job) -> Result<()> {
        self.step.begin();
        self.is_busy = true;
        self.jobs.send(job).ok().context("a thread that enforces limits has ended")
    }

    /// How long it has been at the current step of its job.
    pub(super) fn lasts(&self) -> Duration {
        if self.is_busy { self.step.lasts() } else { Duration::ZERO }
    }
}
