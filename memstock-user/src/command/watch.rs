//! The live part of `memstock run`: a table each second, events as they come, until it ends.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use memstock_common::event::EventKind;
use memstock_common::stat::StreamStat;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};

use crate::cgroup::CgroupMount;
use crate::drains::Drains;
use crate::enforce::duty::{Duty, News};
use crate::engine::Engine;
use crate::event::{self, Decoded};
use crate::host::page_size;
use crate::hotplug::{Change, Hotplug};
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

    /// Waits for one; returns its number.
    pub async fn any(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        kind.as_raw_value() as u8
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
    /// What enforces its limits, and hands its events on.
    pub duty: Duty,
    /// The drains that it asks for by its events, unless they are not wanted.
    pub drains: Option<Drains<'a>>,
    /// The CPUs that it runs on.
    pub hotplug: Hotplug,
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
        self.hear_all()?;
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
                Some(news) = self.duty.news.recv() => {
                    self.hear(news)?;
                    self.tell_hotplug()?;
                }
                // CPU by CPU, so that nothing else has to wait for a drain.
                () = yield_now(), if self.drains.as_ref().is_some_and(Drains::is_due) => self.drain()?,
                _ = settling.tick(), if self.tree.is_unsettled() => self.tree.settle()?,
                status = exit_of(child) => {
                    let status = status.context("cannot wait for COMMAND")?;
                    self.hear_all()?;
                    return Ok(End::Exited(launch::exit_code_of(status)));
                }
                _ = signals.any() => return Ok(End::Told),
                () = passing(end) => return Ok(End::Told),
            }
        }
    }

    fn tick(&mut self, out: &mut dyn Write) -> Result<io::Result<()>> {
        self.flush_log();
        // Events of cgroups that came or went may be among those that were lost.
        if self.losses.tell(self.engine, self.journal)? {
            self.tree.catch_up();
            self.hotplug.catch_up();
            self.tell_hotplug()?;
        }
        self.tree.settle()?;
        self.tree.look_at_swap()?;
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

    fn drain(&mut self) -> Result<()> {
        if let Some(drains) = &mut self.drains
            && let Some(receipt) = drains.step()?
        {
            self.journal.publish(receipt.into());
        }
        Ok(())
    }

    fn tell_hotplug(&mut self) -> Result<()> {
        let records = self.hotplug.changes()?.into_iter().flat_map(Change::into_records);
        records.for_each(|record| self.journal.publish(record));
        Ok(())
    }

    /// Follows cgroups and CPUs that came and went, has stocks drained, and tells of what else happened.
    fn hear(&mut self, news: News) -> Result<()> {
        match news {
            News::Event(decoded) => return self.follow(&decoded),
            News::Record(record) => self.journal.publish(*record),
            News::Unreadable(error) => {
                log::warn!("an event of the kernel half is unreadable: {error:#}");
                self.journal.publish(Record::lost(StreamStat::EventsUnreadable.stat(), 1));
            }
            News::Failed(error) => log::warn!("{error:#}"),
        }
        Ok(())
    }

    fn follow(&mut self, decoded: &Decoded) -> Result<()> {
        let event = &decoded.event;
        let limit = || event::limit(decoded, |id| self.tree.name(id), page_size());
        match decoded.kind {
            EventKind::CgroupMade => self.tree.made(event.cgroup_id),
            EventKind::CgroupRemoved => self.tree.removed(event.cgroup_id),
            EventKind::CpuHotplug => self.hotplug.step(event),
            EventKind::ReclaimBegan => {
                if let Some(drains) = &mut self.drains {
                    drains.reclaim_began(event.time_ns);
                }
            }
            EventKind::LimitNear => {
                self.journal.publish_at(event.time_ns, Record::LimitNear(limit()));
                if let Some(drains) = &mut self.drains {
                    drains.limit_near(event.ancestor_id, event.time_ns)?;
                }
            }
            EventKind::LimitHit => {
                self.journal.publish_at(event.time_ns, Record::LimitHit(limit()));
            }
        }
        Ok(())
    }

    fn hear_all(&mut self) -> Result<()> {
        while let Ok(news) = self.duty.news.try_recv() {
            self.hear(news)?;
        }
        Ok(())
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
