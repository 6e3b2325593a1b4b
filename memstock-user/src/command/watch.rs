//! The live part of `memstock run`: a table each second, events as they come, until it ends.

use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use memstock_common::event::EventKind;
use memstock_common::stat::StreamStat;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};

use crate::cgroup::CgroupMount;
use crate::engine::Engine;
use crate::event;
use crate::host::page_size;
use crate::journal::{Journal, Record};
use crate::launch;
use crate::loss::Losses;
use crate::sample::sample;
use crate::show::{summary, table};
use crate::tree::Tree;

/// Time between two tables.
const PERIOD: Duration = Duration::from_secs(1);
/// Time between two settlings while cgroups come and go: each waits for a grace period.
const SETTLE: Duration = Duration::from_millis(100);
/// Time COMMAND gets to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// SIGINT and SIGTERM, caught from before anything is made until all of it is gone.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts to catch them.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).context("cannot install a signal handler");
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What is watched.
pub struct Watch<'a> {
    /// The running engine.
    pub engine: &'a Engine,
    /// Where its cgroups are.
    pub mount: &'a CgroupMount,
    /// The cgroups that it tracks.
    pub tree: Tree<'a>,
    /// Its events.
    pub events: RingBuf<MapData>,
    /// Its log, when it has one.
    pub log: Option<EbpfLogger<&'static dyn log::Log>>,
    /// COMMAND, when there is one.
    pub child: Option<Child>,
    /// When to end, at the latest.
    pub seconds: Option<u64>,
    /// Where everybody is told what happened.
    pub journal: &'a Journal,
    /// What was lost so far.
    pub losses: Losses,
}

/// Why the watching ended.
enum End {
    /// COMMAND did.
    Exited(u8),
    /// A signal, or the time was up.
    Told,
    /// Nobody reads the table any more.
    Unread,
}

impl Watch<'_> {
    /// Shows the engine until COMMAND ends, the time is up, or a signal comes; then ends COMMAND
    /// if it still runs, and prints the summary. Returns the exit code.
    ///
    /// # Errors
    /// The engine cannot be read.
    pub async fn run(mut self, signals: &mut Signals) -> Result<u8> {
        // COMMAND's output is COMMAND's.
        let mut out: Box<dyn Write> = match self.child {
            Some(_) => Box::new(io::stderr()),
            None => Box::new(io::stdout()),
        };
        let mut child = self.child.take();
        let end = self.until_end(&mut out, signals, &mut child).await;
        let code = match (&end, child) {
            (Ok(End::Exited(code)), _) => *code,
            (_, Some(mut child)) => {
                launch::exit_code_of(launch::terminate(&mut child, GRACE).await?)
            }
            (_, None) => 0,
        };
        self.flush_log();
        self.take_events();
        self.losses.tell(self.engine, self.journal)?;
        if !matches!(end?, End::Unread) {
            let sample = sample(self.engine, self.mount)?;
            // The run is over either way.
            let _ = writeln!(out).and_then(|()| summary::write(&mut out, &sample));
        }
        Ok(code)
    }

    async fn until_end(
        &mut self,
        out: &mut dyn Write,
        signals: &mut Signals,
        child: &mut Option<Child>,
    ) -> Result<End> {
        let start = Instant::now();
        let end = self.seconds.map(|seconds| start + Duration::from_secs(seconds));
        let mut ticks = interval_at(start + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut settling = interval(SETTLE);
        settling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A descriptor of its own, so that `self.events` stays free to be read.
        let events = self.events.as_fd().try_clone_to_owned();
        let events = events.context("cannot keep the event ring open")?;
        // SAFETY: an OwnedFd is one descriptor, open for as long as it lives.
        let readable = unsafe { AsyncFd::register(events) }.context("cannot wait for events")?;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if let Err(error) = self.tick(out)? {
                        return match error.kind() {
                            io::ErrorKind::BrokenPipe => Ok(End::Unread),
                            _ => Err(error).context("cannot print the table"),
                        };
                    }
                }
                guard = readable.readable() => {
                    guard.context("cannot wait for events")?.clear_ready();
                    self.take_events();
                }
                _ = settling.tick(), if self.tree.is_unsettled() => self.tree.settle()?,
                status = exit_of(child) => {
                    let status = status.context("cannot wait for COMMAND")?;
                    self.take_events();
                    return Ok(End::Exited(launch::exit_code_of(status)));
                }
                () = signals.any() => return Ok(End::Told),
                () = passing(end) => return Ok(End::Told),
            }
        }
    }

    fn tick(&mut self, out: &mut dyn Write) -> Result<io::Result<()>> {
        self.flush_log();
        // Events of cgroups that came or went may be among those that were lost.
        if self.losses.tell(self.engine, self.journal)? {
            self.tree.catch_up();
        }
        self.tree.settle()?;
        let sample = sample(self.engine, self.mount)?;
        Ok(table::write(out, &sample, page_size())
            .and_then(|()| writeln!(out))
            .and_then(|()| out.flush()))
    }

    fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Follows cgroups that came and went, and tells of what else happened.
    fn take_events(&mut self) {
        while let Some(record) = self.events.next() {
            let decoded = match event::decode(&record) {
                Ok(decoded) => decoded,
                Err(error) => {
                    log::warn!("an event of the kernel half is unreadable: {error:#}");
                    self.journal.publish(Record::lost(StreamStat::EventsUnreadable.stat(), 1));
                    continue;
                }
            };
            let time_ns = decoded.event.time_ns;
            let limit = || event::limit(&decoded, |id| self.tree.name(id), page_size());
            match decoded.kind {
                EventKind::CgroupMade => self.tree.made(decoded.event.cgroup_id),
                EventKind::CgroupRemoved => self.tree.removed(decoded.event.cgroup_id),
                EventKind::LimitNear => {
                    self.journal.publish_at(time_ns, Record::LimitNear(limit()));
                }
                EventKind::LimitHit => self.journal.publish_at(time_ns, Record::LimitHit(limit())),
            }
        }
    }
}

async fn exit_of(child: &mut Option<Child>) -> io::Result<std::process::ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

async fn passing(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
