//! The recording thread: what it does in each round.

mod end;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use memstock_common::record::RecordKind;
use tokio::sync::Notify;

use super::cache::Cache;
use super::charges::{self, Charging};
use super::flags::Walks;
use super::header::{header, lacks};
use super::limits::Limits;
use super::stalls::Stalls;
use super::tasks::{Peaks, Tasks};
use super::usage::{Beside, Moments, Now};
use super::{Ending, Subject, Summary, kernel, lost};
use crate::engine::Engine;
use crate::engine::pins::Pins;
use crate::engine::recorded::{Entry, Recorded, comm};
use crate::host::cgroup::{ById, CgroupMount};
use crate::host::disks::Disks;
use crate::host::now_ns;
use crate::recording::{TaskEvent, TaskEventKind, Writer};

/// The interval between two rounds.
const ROUND: Duration = Duration::from_millis(10);
/// The same, while more is reported than there is room for.
const SOON: Duration = Duration::from_millis(1);
/// Records read before anything else is done.
const MUCH: usize = 1000;
/// The interval between two looks at the kernel's own figures.
const KERNEL: Duration = Duration::from_millis(100);
/// The interval between two flushes, and between two checks that cgroup and engine still exist.
const FLUSH: Duration = Duration::from_secs(1);

/// A recording in progress.
pub(super) struct Recording {
    subject: Subject,
    engine: Engine,
    pins: Pins,
    mount: CgroupMount,
    index: u32,
    recorded: Recorded,
    to: Writer<File>,
    begun: Instant,
    /// The same instant, by the clock of the kernel half.
    begun_ns: u64,
    moments: Moments,
    beside: Beside,
    walks: Option<Walks>,
    peaks: Peaks,
    tasks: Tasks,
    limits: Limits,
    cache: Cache,
    charging: Option<Charging>,
    lost_before: lost::Counts,
    disks: Disks,
    stalls: Stalls,
    kernel_at: Duration,
    flushed_at: Duration,
    gone: Arc<Notify>,
    /// Why writing failed.
    failed: Option<String>,
    /// How often something could not be read.
    unreadable: u64,
}

impl Recording {
    pub(super) fn begin(
        pins: &Pins,
        subject: Subject,
        file: File,
        gone: Arc<Notify>,
    ) -> Result<Self> {
        let (engine, mount) = (Engine::open(pins)?, CgroupMount::find()?);
        let cgroup = &subject.cgroup;
        let index = engine.index_of(cgroup.id)?.context("the cgroup is not tracked")?;
        let recorded = Recorded::watch(cgroup)?;
        let mut header = header(cgroup, subject.name.clone(), &subject.command)?;
        let walks = Walks::new(&engine);
        let limits = Limits::begin(&engine, &mount, index, &cgroup.dir);
        header.assumes = lacks(cgroup, recorded.missing(), walks.as_ref().err());
        header.assumes.extend(limits.readers.lack());
        let charging = subject.charges.then(|| Charging::begin(&engine)).transpose()?;
        header.assumes.extend(charging.iter().flat_map(Charging::assumes));
        let lost_before = lost::of_engine(&engine)?;
        let is_running = subject.command.is_empty();
        let before = if is_running { Now::read(&engine, index, cgroup.id)? } else { None };
        let mut to = Writer::new(file, &header).context("cannot write the recording")?;
        if charging.is_some() {
            charges::begin(&engine, &mut to).context("cannot write the recording")?;
        }
        let mut recording = Self {
            engine,
            pins: pins.clone(),
            mount,
            index,
            recorded,
            to,
            begun: Instant::now(),
            begun_ns: now_ns(),
            moments: Moments::since(before),
            beside: Beside::default(),
            walks: walks.ok(),
            peaks: Peaks::default(),
            tasks: Tasks::default(),
            limits,
            cache: Cache::new(),
            charging,
            lost_before,
            disks: Disks::read(),
            stalls: Stalls::begin(&subject.cgroup.dir),
            kernel_at: Duration::ZERO,
            flushed_at: Duration::ZERO,
            gone,
            failed: None,
            unreadable: 0,
            subject,
        };
        for (pid, comm) in recording.tasks.begin(&recording.subject.cgroup.dir) {
            recording.task(Duration::ZERO, pid, TaskEventKind::Exec { comm });
            recording.look_at(Duration::ZERO, pid);
        }
        kernel::read(&recording.subject.cgroup.dir, &mut recording.beside);
        recording.look(Duration::ZERO, false)?;
        recording.to.flush().context("cannot write the recording")?;
        Ok(recording)
    }

    pub(super) fn run(mut self, endings: &Receiver<Ending>) -> Summary {
        let mut pause = ROUND;
        loop {
            match endings.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {
                    let has_more = self.poll();
                    pause = if has_more || self.cache.is_busy() { SOON } else { ROUND };
                    self.round();
                }
                Ok(ending) => return self.end(ending),
                Err(RecvTimeoutError::Disconnected) => return self.end(Ending::default()),
            }
        }
    }

    fn round(&mut self) {
        let at = self.begun.elapsed();
        self.stalls.look_if_due(at);
        self.poll_readers(at);
        if let Some(one_in) = self.cache.rate()
            && let Err(error) = self.recorded.follow(one_in)
        {
            self.not_read(&error);
        }
        if at.saturating_sub(self.kernel_at) >= KERNEL {
            self.kernel_at = at;
            kernel::read(&self.subject.cgroup.dir, &mut self.beside);
            self.limits.look(&self.engine);
        }
        if let Err(error) = self.look(self.begun.elapsed(), false) {
            self.not_read(&error);
        }
        if at.saturating_sub(self.flushed_at) >= FLUSH {
            self.flushed_at = at;
            let flushed = self.to.flush();
            self.note(flushed);
            if self.is_gone() {
                self.gone.notify_one();
            }
        }
    }

    /// Whether the figures no longer change: those of a removed cgroup, and of an engine that has ended.
    fn is_gone(&self) -> bool {
        self.mount.cgroup_of(self.subject.cgroup.id) == ById::Gone || !self.pins.exist()
    }

    /// Records the engine's figures.
    fn look(&mut self, at: Duration, is_last: bool) -> Result<()> {
        let Some(now) = Now::read(&self.engine, self.index, self.subject.cgroup.id)? else {
            // Its counter may be another cgroup's by now.
            self.gone.notify_one();
            return Ok(());
        };
        let is_due = is_last && !self.is_gone();
        if let Some(walks) = &mut self.walks
            && (is_due || walks.is_due(at, now.needed))
        {
            let Beside { mlocked, shmem, .. } = self.beside;
            let walked = walks.walk(&self.engine, self.index, at, now.needed, &mut self.beside);
            if is_last {
                // As `needed`, the highest since the moment before: its tasks have ended.
                self.beside.mlocked = self.beside.mlocked.max(mlocked);
                self.beside.shmem = self.beside.shmem.max(shmem);
            }
            // Everything else is known without walks.
            if let Err(error) = walked {
                self.not_read(&error);
                self.walks = None;
            }
        }
        if let Some(moment) = self.moments.step(at, now, self.beside, is_last) {
            let written = self.to.moment(&moment);
            self.note(written);
        }
        if let Some(peak) = self.peaks.step(at, &self.subject.cgroup.dir, now.needed) {
            let written = self.to.peak(&peak);
            self.note(written);
        }
        Ok(())
    }

    /// Records what was reported, at most [`MUCH`] records: the rate must be checked in between. Returns whether there
    /// is more.
    fn poll(&mut self) -> bool {
        let has_more = self.poll_charges();
        for _ in 0..MUCH {
            match self.recorded.read() {
                Ok(None) => return has_more,
                Ok(Some(Entry::Accessed(kind, accessed))) => {
                    let at = self.at(accessed.time_ns);
                    let written = self.cache.take(at, kind, &accessed, &mut self.to);
                    self.note(written);
                }
                Ok(Some(Entry::Happened(kind, happened))) => {
                    let (at, pid) = (self.at(happened.time_ns), happened.pid);
                    self.tasks.note(kind, pid);
                    match kind {
                        RecordKind::Exec => {
                            self.task(at, pid, TaskEventKind::Exec { comm: comm(&happened) });
                            self.look_at(at, pid);
                        }
                        RecordKind::Died => self.task(at, pid, TaskEventKind::Died),
                        _ => self.task(at, pid, TaskEventKind::Born { parent: happened.parent }),
                    }
                }
                Err(error) => self.not_read(&error),
            }
        }
        true
    }

    fn poll_readers(&mut self, at: Duration) {
        let Self { limits, tasks, .. } = self;
        for (pid, why) in limits.readers.opened(|pid| tasks.has(pid)) {
            if Tasks::is_unknown(pid) {
                self.task(at, pid, TaskEventKind::FollowsLimit { why: why.into() });
            }
        }
        self.tasks.forget();
    }

    fn poll_charges(&mut self) -> bool {
        let Self { charging: Some(charging), engine, mount, to, .. } = self else { return false };
        match charging.poll(engine, mount, to) {
            Ok(has_more) => has_more,
            Err(error) => match error.downcast::<io::Error>() {
                Ok(error) => {
                    self.note(Err(error));
                    false
                }
                Err(error) => {
                    self.not_read(&error);
                    true
                }
            },
        }
    }

    fn look_at(&mut self, at: Duration, pid: u32) {
        self.limits.add_task(pid);
        if let Some(why) = self.tasks.follows_limit(pid) {
            self.task(at, pid, TaskEventKind::FollowsLimit { why: why.into() });
        }
    }

    fn task(&mut self, at: Duration, pid: u32, kind: TaskEventKind) {
        let written = self.to.task(&TaskEvent { at, pid, kind });
        self.note(written);
    }

    fn at(&self, time_ns: u64) -> Duration {
        Duration::from_nanos(time_ns.saturating_sub(self.begun_ns))
    }

    fn note(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            let at = self.begun.elapsed().as_secs_f64();
            let failed = format!("the recording ends at {at:.1} s: {error}");
            log::warn!("{failed}");
            self.failed = Some(failed);
            // Going on would be useless.
            self.gone.notify_one();
        }
    }

    fn not_read(&mut self, error: &anyhow::Error) {
        if self.unreadable == 0 {
            log::warn!("the recording continues, but is incomplete: {error:#}");
        }
        self.unreadable += 1;
    }
}
