//! The main loop of `memstock run`: waits for events and passes them to the parts of the daemon. Nothing here takes
//! long, and no error of a part ends it ([`Parts`](crate::daemon::parts::Parts)); `tick` has what is done every second.

mod state;
mod tick;

pub use self::state::{Done, State};

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use memstock_common::event::EventKind;
use memstock_common::stat::StreamStat;
use rustix::process::Signal;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};

use super::closed_pipe_is_success;
use super::outcome::Outcome;
use super::reload::Reload;
use super::signals::Signals;
use crate::daemon::hotplug::Hotplug;
use crate::daemon::loss::Losses;
use crate::daemon::parts::Part;
use crate::daemon::sweep::Sweep;
use crate::daemon::tree::Tree;
use crate::daemon::work::Received;
use crate::enforce::Policy;
use crate::enforce::drains::Drains;
use crate::enforce::enforcer::Enforcer;
use crate::enforce::job::Message;
use crate::engine::Engine;
use crate::engine::kernel_slots::KernelSlots;
use crate::engine::sample::sample;
use crate::host::cgroup::CgroupMount;
use crate::host::launch::{Ended, Running};
use crate::host::notify::Manager;
use crate::host::page_size;
use crate::journal::event::{self, Decoded};
use crate::journal::{Journal, Record};
use crate::view::metrics::{Metrics, Question};
use crate::view::show::{observed::Observed, summary};

/// Time between two tables.
const PERIOD: Duration = Duration::from_secs(1);
/// Time until the first one: COMMAND has something to show by then.
const FIRST: Duration = Duration::from_millis(100);
/// Time between two retries of deferred work while cgroups come and go: each waits for a grace period.
const RETRY: Duration = Duration::from_millis(100);
/// Time until a new cgroup is looked for again: it appears a moment after its event.
const LOOK: Duration = Duration::from_millis(2);
/// Time that COMMAND has to end after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// The state of the main loop.
pub struct Watch<'a> {
    /// The running engine.
    pub engine: &'a Engine,
    /// The hierarchy of its cgroups.
    pub mount: &'a CgroupMount,
    /// The cgroups that it tracks.
    pub tree: Tree<'a>,
    /// Enforces its limits, and passes its events on.
    pub enforcer: Enforcer,
    /// The policy that the enforcer was started with.
    pub policy: Policy,
    /// The drains that its events ask for; none with `--no-drain`.
    pub drains: Option<Drains<'a>>,
    /// The CPUs that it runs on.
    pub hotplug: Hotplug,
    /// Its log, when it has one.
    pub log: Option<EbpfLogger<&'static dyn log::Log>>,
    /// COMMAND, when there is one.
    pub child: Option<Running>,
    /// COMMAND is measured: print nothing, and pass SIGINT to COMMAND.
    pub is_measured: bool,
    /// When to end, at the latest.
    pub seconds: Option<u64>,
    /// Whether tables and the summary are left out.
    pub quiet: bool,
    /// The event stream.
    pub journal: &'a Journal,
    /// What was lost so far.
    pub losses: Losses,
    /// Finds lost frees.
    pub sweep: Sweep,
    /// What the limits would have done so far.
    pub observed: Observed,
    /// Reloads the configuration, if there is one.
    pub reload: Option<Reload<'a>>,
    /// The server of metrics, if asked for.
    pub metrics: Option<Metrics>,
    /// Reads the kernel's own stocks for the metrics, if asked for.
    pub kernel: Option<KernelSlots>,
    /// Notified when there is nothing left to watch.
    pub over: Option<Arc<Notify>>,
    /// The service manager.
    pub manager: Manager,
    /// Parts of the daemon and work under way.
    pub state: State<'a>,
}

/// Why the loop ended; each is on purpose.
pub enum End {
    /// COMMAND ended.
    Exited,
    /// A signal, the time was up, or what is recorded has ended.
    Over,
    /// Nobody reads the table any more.
    Unread,
}

impl Watch<'_> {
    /// Watches until COMMAND ends, the time is up, or a signal comes.
    ///
    /// # Errors
    /// COMMAND cannot be waited for.
    pub async fn run(&mut self, signals: &mut Signals) -> Result<End> {
        self.manager.ready(&status(&self.tree));
        let start = Instant::now();
        // A time beyond the range of the clock is no end.
        let end = self.seconds.and_then(|seconds| start.checked_add(Duration::from_secs(seconds)));
        let mut ticks = interval_at(start + FIRST, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut retries = interval(RETRY);
        retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    self.tick();
                    if self.print().is_err() {
                        return Ok(End::Unread);
                    }
                }
                Some(message) = self.enforcer.messages.recv() => self.handle(message),
                received = self.state.work.recv() => self.handle_work(received),
                // One CPU and one directory at a time, so that nothing else has to wait.
                () = yield_now(), if self.has_drains() => self.drain(),
                () = yield_now(), if self.tree.has_unseen() && self.state.parts.is_due(Part::Tree) => {
                    let looked = self.tree.look_below();
                    self.note(Part::Tree, looked);
                    self.adopt();
                }
                // Here and not in a task of its own: it shows that this loop and the enforcer make progress.
                () = self.manager.watchdog_due() => if self.enforcer.has_moved() {
                    self.manager.alive(&status(&self.tree));
                },
                () = sleep_until(self.state.look_at), if self.tree.has_unknown() => self.look_again(),
                _ = retries.tick(), if self.has_deferred() => self.retry(),
                Some(question) = asked(&mut self.metrics) => self.answer(question),
                ended = exit_of(&mut self.child) => {
                    ended.context("cannot wait for COMMAND")?;
                    return Ok(End::Exited);
                }
                signal = signals.any() => match &self.child {
                    _ if signal == Signal::HUP && self.reload.is_some() => Reload::begin(self),
                    Some(child)
                        if self.is_measured && matches!(signal, Signal::INT | Signal::QUIT) =>
                    {
                        if let Err(error) = child.signal(signal) {
                            log::warn!("{error:#}");
                        }
                    }
                    _ => return Ok(End::Over),
                },
                () = notified(&self.over) => return Ok(End::Over),
                () = passing(end) => return Ok(End::Over),
            }
        }
    }

    /// Ends COMMAND if it still runs, handles what the enforcer has sent, and prints the summary.
    ///
    /// # Errors
    /// COMMAND does not end, or the engine cannot be read.
    pub async fn finish(mut self, end: End) -> Result<Outcome> {
        self.manager.stopping();
        // What is still received below must not begin anything.
        (self.tree.adopts, self.state.adopts) = (false, false);
        let mut out = self.out();
        let command = match self.child.take() {
            // If it has ended already, this returns the same.
            Some(mut child) => Some(child.terminate(GRACE).await?),
            None => None,
        };
        self.flush_log();
        while let Ok(message) = self.enforcer.messages.try_recv() {
            self.handle(message);
        }
        self.journal.tell_withheld(true);
        self.read_losses();
        let sample = sample(self.engine, self.mount, &mut self.state.paths)?;
        if !self.is_measured && !self.quiet && !matches!(end, End::Unread) {
            let printed = writeln!(out)
                .and_then(|()| summary::write(&mut out, &sample))
                .and_then(|()| self.observed.write(&mut out, &sample, page_size()));
            // COMMAND's exit code comes before an error in printing.
            if command.is_none() {
                closed_pipe_is_success(printed)?;
            }
        }
        Ok(Outcome { command, sample, home: None, kills: self.state.kills })
    }

    /// Standard output is COMMAND's.
    fn out(&self) -> Box<dyn Write> {
        match &self.child {
            Some(_) => Box::new(io::stderr()),
            None => Box::new(io::stdout()),
        }
    }

    /// Reports an error of work that is not retried by itself.
    fn note(&mut self, part: Part, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.state.parts.failed(part, &error);
        }
    }

    fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    fn has_drains(&self) -> bool {
        self.drains.as_ref().is_some_and(Drains::is_due) && self.state.parts.is_due(Part::Drains)
    }

    fn drain(&mut self) {
        let Some(drains) = &mut self.drains else { return };
        if let Some(Some(receipt)) = self.state.parts.outcome(Part::Drains, drains.step()) {
            self.journal.publish(receipt.into());
        }
    }

    fn look_again(&mut self) {
        let looked = self.tree.look_again();
        self.note(Part::Tree, looked);
        self.state.look_at = Instant::now() + self.tree.looked_for().clamp(LOOK, RETRY);
        self.adopt();
    }

    /// Handles what the enforcer sends: follows cgroups and CPUs, has stocks drained, publishes the rest.
    fn handle(&mut self, message: Message) {
        match message {
            Message::Event(decoded) => self.follow(&decoded),
            Message::Record(record) => {
                self.observed.note(&record);
                self.state.kills += u64::from(matches!(*record, Record::OomKill { .. }));
                self.journal.publish(*record);
            }
            Message::Unreadable(error) => {
                log::warn!("an event of the kernel half is unreadable: {error:#}");
                self.state.unreadable += 1;
                self.journal.publish(Record::lost(StreamStat::EventsUnreadable.stat(), 1));
            }
            Message::Failed(error) => self.state.parts.failed(Part::Enforcement, &error),
        }
    }

    fn follow(&mut self, decoded: &Decoded) {
        let event = &decoded.event;
        let limit = || event::limit(decoded, |id| self.tree.name(id), page_size());
        match decoded.kind {
            EventKind::CgroupMade => {
                let made = self.tree.made(event.cgroup_id);
                self.note(Part::Tree, made);
                self.adopt();
                self.state.look_at = self.state.look_at.min(Instant::now() + LOOK);
            }
            EventKind::CgroupRemoved => {
                if self.tree.removed(event.cgroup_id) {
                    let name = self.tree.name(event.cgroup_id);
                    let judged = self.observed.removed(name, self.engine);
                    self.note(Part::Accounting, judged);
                }
            }
            EventKind::CpuHotplug => {
                self.hotplug.step(event);
                self.follow_cpus();
            }
            EventKind::ReclaimBegan => {
                if let Some(drains) = &mut self.drains {
                    drains.reclaim_began(event.time_ns);
                }
            }
            EventKind::LimitNear => {
                self.journal.publish_at(event.time_ns, Record::LimitNear(limit()));
                if let Some(drains) = &mut self.drains {
                    let asked = drains.limit_near(event.ancestor_id, event.time_ns);
                    self.note(Part::Drains, asked);
                }
            }
            EventKind::LimitHit => {
                self.journal.publish_at(event.time_ns, Record::LimitHit(limit()));
            }
        }
    }

    /// Continues with work that another thread has done.
    fn handle_work(&mut self, received: Received<Done>) {
        match received {
            Received::Record(record) => self.journal.publish(*record),
            Received::Done(part, outcome) => {
                let done = self.state.parts.outcome(part, outcome);
                self.go_on(part, done);
            }
        }
    }
}

/// The status line that the service manager shows.
pub(super) fn status(tree: &Tree<'_>) -> String {
    format!("cgroups tracked: {}", tree.nr_tracked())
}

async fn exit_of(child: &mut Option<Running>) -> io::Result<Ended> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

async fn asked(metrics: &mut Option<Metrics>) -> Option<Question> {
    match metrics {
        Some(metrics) => metrics.asked().await,
        None => std::future::pending().await,
    }
}

async fn notified(over: &Option<Arc<Notify>>) {
    match over {
        Some(over) => over.notified().await,
        None => std::future::pending().await,
    }
}

async fn passing(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
