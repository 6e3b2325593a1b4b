//! The live part of `memstock run`: a table each second, events as they come, until it ends.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use memstock_common::event::EventKind;
use memstock_common::stat::{Stat, StreamStat};
use rustix::process::Signal;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};

use super::outcome::Outcome;
use super::reload::Reload;
use super::signals::Signals;
use crate::cgroup::CgroupMount;
use crate::drains::Drains;
use crate::enforce::duty::{Duty, News};
use crate::engine::Engine;
use crate::engine::faults::FaultEvents;
use crate::event::{self, Decoded};
use crate::host::page_size;
use crate::hotplug::{Change, Hotplug};
use crate::journal::{Journal, Record};
use crate::launch::{Ended, Running};
use crate::loss::Losses;
use crate::metrics::{Ask, Facts, Metrics};
use crate::notify::Manager;
use crate::sample::{losses, sample};
use crate::show::{rehearsed::Rehearsed, summary, table};
use crate::sweep::Sweep;
use crate::tree::Tree;

/// Time between two tables.
const PERIOD: Duration = Duration::from_secs(1);
/// Time between two settlings while cgroups come and go: each waits for a grace period.
const SETTLE: Duration = Duration::from_millis(100);
/// Time COMMAND gets to end after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(2);

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
    /// The events by which it sees faults, if it does by events.
    pub fault_events: Option<FaultEvents>,
    /// Its log, when it has one.
    pub log: Option<EbpfLogger<&'static dyn log::Log>>,
    /// COMMAND, when there is one.
    pub child: Option<Running>,
    /// COMMAND is measured: nothing is printed, and SIGINT is for COMMAND.
    pub is_measured: bool,
    /// When to end, at the latest.
    pub seconds: Option<u64>,
    /// Whether tables and the summary are left out.
    pub quiet: bool,
    /// Where everybody is told what happened.
    pub journal: &'a Journal,
    /// What was lost so far.
    pub losses: Losses,
    /// What finds frees that were.
    pub sweep: Sweep,
    /// What the limits would have done so far.
    pub rehearsed: Rehearsed,
    /// What reads the configuration again, when there is one.
    pub reload: Option<Reload<'a>>,
    /// Who watches it from elsewhere, if anybody may.
    pub metrics: Option<Metrics>,
}

/// Why the watching ended.
enum End {
    /// COMMAND did.
    Exited,
    /// A signal, or the time was up.
    Told,
    /// Nobody reads the table any more.
    Unread,
}

impl Watch<'_> {
    /// Shows the engine until COMMAND ends, the time is up, or a signal comes; then ends COMMAND
    /// if it still runs, and prints the summary.
    ///
    /// # Errors
    /// The engine cannot be read.
    pub async fn run(mut self, signals: &mut Signals) -> Result<Outcome> {
        // COMMAND's output is COMMAND's.
        let mut out: Box<dyn Write> = match self.child {
            Some(_) => Box::new(io::stderr()),
            None => Box::new(io::stdout()),
        };
        let mut child = self.child.take();
        let mut manager = Manager::from_env();
        manager.ready(&self.status());
        let end = self.until_end(&mut out, signals, &mut child, &mut manager).await;
        manager.stopping();
        let command = match child {
            // One that has ended says it again.
            Some(mut child) => Some(child.terminate(GRACE).await?),
            None => None,
        };
        self.flush_log();
        self.hear_all()?;
        self.losses.tell(self.engine, self.journal)?;
        let end = end?;
        let sample = sample(self.engine, self.mount)?;
        if !self.is_measured && !self.quiet && !matches!(end, End::Unread) {
            // The run is over either way.
            let _ = writeln!(out)
                .and_then(|()| summary::write(&mut out, &sample))
                .and_then(|()| self.rehearsed.write(&mut out, &sample, page_size()));
        }
        Ok(Outcome { command, sample, home: None })
    }

    async fn until_end(
        &mut self,
        out: &mut dyn Write,
        signals: &mut Signals,
        child: &mut Option<Running>,
        manager: &mut Manager,
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
                Some(news) = self.duty.news.recv() => self.hear(news).and_then(|()| self.tell_hotplug())?,
                // CPU by CPU, so that nothing else has to wait for a drain.
                () = yield_now(), if self.drains.as_ref().is_some_and(Drains::is_due) => self.drain()?,
                // Here and not in a task of its own: it shows that this loop and the enforcing thread go round.
                () = manager.watchdog_due() => if self.duty.has_moved() {
                    manager.alive(&self.status());
                },
                _ = settling.tick(), if self.is_unsettled() => self.settle()?,
                Some(ask) = asked(&mut self.metrics) => self.answer(ask)?,
                ended = exit_of(child) => {
                    ended.context("cannot wait for COMMAND")?;
                    self.hear_all()?;
                    return Ok(End::Exited);
                }
                signal = signals.any() => match child {
                    _ if signal == Signal::HUP && self.reload.is_some() => {
                        manager.reloading();
                        Reload::run(self);
                        manager.ready(&self.status());
                    }
                    Some(child) if self.is_measured && signal == Signal::INT => child.signal(signal)?,
                    _ => return Ok(End::Told),
                },
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
        }
        self.hotplug.look_again();
        self.tell_hotplug()?;
        self.tree.settle()?;
        self.tree.look_at_swap()?;
        self.sweep.step(self.engine)?;
        if self.metrics.is_some() {
            let losses = losses(self.engine)?;
            let facts = self.facts(&losses);
            if let Some(metrics) = &mut self.metrics {
                metrics.observe(&facts);
            }
        }
        if self.is_measured || self.quiet {
            return Ok(Ok(()));
        }
        let sample = sample(self.engine, self.mount)?;
        Ok(table::write(out, &sample, page_size())
            .and_then(|()| writeln!(out))
            .and_then(|()| out.flush()))
    }

    /// For the service manager, which shows it to people.
    fn status(&self) -> String {
        format!("cgroups tracked: {}", self.tree.nr_tracked())
    }

    fn answer(&mut self, ask: Ask) -> Result<()> {
        let losses = losses(self.engine)?;
        let facts = self.facts(&losses);
        let Some(metrics) = &mut self.metrics else { return Ok(()) };
        metrics.answer(ask, &facts, || sample(self.engine, self.mount))
    }

    fn facts<'l>(&self, losses: &'l [(Stat, u64)]) -> Facts<'l> {
        Facts {
            losses,
            records: self.journal.counts(),
            left_out: self.tree.left_out(),
            stream_fails: self.journal.fails(),
            is_on_duty: !self.duty.news.is_closed(),
        }
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

    fn is_unsettled(&self) -> bool {
        self.tree.is_unsettled() || self.fault_events.is_some() && self.hotplug.has_moved()
    }

    fn settle(&mut self) -> Result<()> {
        if let Some(events) = &mut self.fault_events {
            events.renew(self.hotplug.returned()?);
        }
        self.tree.settle()
    }

    /// Follows cgroups and CPUs that came and went, has stocks drained, and tells of what else happened.
    fn hear(&mut self, news: News) -> Result<()> {
        match news {
            News::Event(decoded) => return self.follow(&decoded),
            News::Record(record) => {
                self.rehearsed.note(&record);
                self.journal.publish(*record);
            }
            News::Unreadable(error) => {
                log::warn!("an event of the kernel half is unreadable: {error:#}");
                if let Some(metrics) = &mut self.metrics {
                    metrics.unreadable();
                }
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
            EventKind::CgroupRemoved => {
                self.rehearsed.removed(self.tree.name(event.cgroup_id), self.engine)?;
                self.tree.removed(event.cgroup_id);
            }
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

async fn exit_of(child: &mut Option<Running>) -> io::Result<Ended> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

async fn asked(metrics: &mut Option<Metrics>) -> Option<Ask> {
    match metrics {
        Some(metrics) => metrics.asked().await,
        None => std::future::pending().await,
    }
}

async fn passing(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
