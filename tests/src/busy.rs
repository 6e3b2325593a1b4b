//! An engine with every kind of work to do, for endurance tests.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::config::{ConfigFile, entry};
use crate::exposition::Exposition;
use crate::hog::HogBuilder;
use crate::hotplug::{CpuOffline, can_go_offline};
use crate::http::ask;
use crate::poll::{SOON, try_poll_until};
use crate::{Engine, PAGE, Task, TestCgroup};

/// Limit of the full cgroup, in pages.
const LIMIT: u64 = 2048;
/// Long enough for the daemon to do all its periodic work once.
const ROUND: Duration = Duration::from_millis(1100);

/// An engine at work.
#[derive(Debug)]
pub struct Busy {
    top: TestCgroup,
    full: TestCgroup,
    file: ConfigFile,
    holder: Task,
    /// The engine.
    pub engine: Engine,
}

impl Busy {
    /// Starts the engine with two cgroups, one of which will be full.
    ///
    /// # Errors
    /// When it does not start.
    pub fn new() -> Result<Self> {
        let top = TestCgroup::new()?;
        let full = top.child("full")?;
        let limit = format!("memory = {}", LIMIT * PAGE);
        let file = ConfigFile::new(entry(&top, "memory = '1G'") + &entry(&full, &limit))?;
        let engine = Engine::start_adopting(args(&file))?;
        let mut holder = Task::start(&top, None)?;
        holder.touch(500)?;
        Ok(Self { top, full, file, holder, engine })
    }

    /// Gives the daemon some of everything: creates and removes a cgroup, hits a limit, reloads the configuration,
    /// scrapes metrics, and takes a CPU offline and back. [`Self::check`] finds what the daemon did not get done.
    ///
    /// # Errors
    /// When a limit is not enforced.
    pub fn stir(&mut self, hotplug: bool) -> Result<()> {
        let begun = Instant::now();
        let child = self.top.child("child")?;
        let mut inside = Task::start(&child, None)?;
        inside.touch(64)?;
        let mut hog = HogBuilder::pages(2 * LIMIT).start(&self.full)?;
        self.engine.process().signal(Signal::HUP)?;
        if let Ok(at) = self.engine.metrics() {
            let _ = ask(at, "GET", "/metrics", &[]);
        }
        if hotplug && can_go_offline(1) {
            CpuOffline::take(1)?.back()?;
        }
        drop(inside);
        drop(child);
        sleep(ROUND.saturating_sub(begun.elapsed()));
        if self.engine.process().ended()?.is_none() {
            hog.was_killed()?;
        }
        Ok(())
    }

    /// Waits until the engine is well again. Returns whether the daemon had died and another one adopted the engine.
    ///
    /// # Errors
    /// When the engine, a limit or a charge was lost, or the daemon does not become well in time.
    pub fn check(&mut self) -> Result<bool> {
        let show = self.engine.show()?;
        ensure!(show.cgroup(self.top.path())?.memory.limit == Some(1 << 30), "{show:#?}");
        let limit = show.cgroup(self.full.path())?.memory.limit;
        ensure!(limit == Some(LIMIT * PAGE), "{show:#?}");
        // The daemon must recover without help.
        let mut died = false;
        try_poll_until(3 * SOON, "the daemon to be well", || {
            if self.engine.process().ended()?.is_some() {
                died = true;
                self.engine.adopt(args(&self.file))?;
            }
            // A successful scrape ends the failure of the `metrics` part.
            let _ = ask(self.engine.metrics()?, "GET", "/metrics", &[]);
            let show = self.engine.show()?;
            // An enforcement error stays visible for a minute; the hog below shows whether limits are enforced.
            let passes = |reason: &String| reason.starts_with("part-fails: enforcement: ");
            let is_well = show.degraded.iter().all(passes) && show.cgroups.len() == 2;
            Ok(is_well.then_some(()))
        })
        .with_context(|| format!("{:#?}", self.engine.show()))?;
        self.holder.touch(1)?;
        let mut hog = HogBuilder::pages(2 * LIMIT).start(&self.full)?;
        hog.was_killed()?;
        Ok(died)
    }

    /// How many errors the daemon has reported since it started: lines on standard error plus its error counters.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn told(&self) -> Result<u64> {
        let is_told =
            |line: &&str| !line.starts_with("event: ") || line.starts_with("event: part-");
        let lines = self.engine.stderr()?.lines().filter(is_told).count();
        let metrics = Exposition::get(self.engine.metrics()?)?;
        let errors = metrics.of("memstock_daemon_errors_total").map(|(_, count)| count as u64);
        Ok(lines as u64 + errors.sum::<u64>())
    }
}

fn args(file: &ConfigFile) -> [&str; 5] {
    ["--config", file.path(), "--metrics", "0", "--quiet"]
}
