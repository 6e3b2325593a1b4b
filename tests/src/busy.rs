//! An engine that has all to do that engines have to do: what tests of its endurance have in common.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::config::{ConfigFile, entry};
use crate::exposition::Exposition;
use crate::hog::Wish;
use crate::hotplug::{CpuOffline, can_go_offline};
use crate::http::ask;
use crate::poll::{SOON, try_poll_until};
use crate::{Engine, PAGE, Task, TestCgroup};

/// Of the cgroup that is full, in pages.
const LIMIT: u64 = 2048;
/// Until everything that the daemon does by itself was done once.
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
    /// Starts it.
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

    /// Has the daemon do all that it does: a cgroup comes and goes, a limit is met, the configuration is read again, metrics
    /// are asked for, and a CPU goes and comes. What it does not get done now is for the check after it.
    ///
    /// # Errors
    /// When a limit does not hold.
    pub fn stir(&mut self, hotplug: bool) -> Result<()> {
        let begun = Instant::now();
        let child = self.top.child("child")?;
        let mut inside = Task::start(&child, None)?;
        inside.touch(64)?;
        let mut hog = Wish::pages(2 * LIMIT).start(&self.full)?;
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

    /// Whether the daemon died, and the next one had to adopt.
    ///
    /// # Errors
    /// When the engine, a limit or what is charged is lost, or the daemon is not well in time.
    pub fn check(&mut self) -> Result<bool> {
        let show = self.engine.show()?;
        ensure!(show.cgroup(self.top.path())?.memory.limit == Some(1 << 30), "{show:#?}");
        let limit = show.cgroup(self.full.path())?.memory.limit;
        ensure!(limit == Some(LIMIT * PAGE), "{show:#?}");
        // It comes to what it should be by itself.
        let mut died = false;
        try_poll_until(3 * SOON, "the daemon to be well", || {
            // One that dies writes first why.
            if self.engine.process().ended()?.is_some() {
                died = true;
                self.engine.adopt(args(&self.file))?;
            }
            // An answer shows that metrics work.
            let _ = ask(self.engine.metrics()?, "GET", "/metrics", &[]);
            let show = self.engine.show()?;
            // That limits are enforced shows when they are met; an error of that is shown for a minute.
            let passes = |reason: &String| reason.starts_with("part-fails: enforcement: ");
            let is_well = show.degraded.iter().all(passes) && show.cgroups.len() == 2;
            Ok(is_well.then_some(()))
        })
        .with_context(|| format!("{:#?}", self.engine.show()))?;
        self.holder.touch(1)?;
        let mut hog = Wish::pages(2 * LIMIT).start(&self.full)?;
        hog.was_killed()?;
        Ok(died)
    }

    /// How often it has told of errors, in lines or by what it counts of them, since the daemon was started.
    ///
    /// # Errors
    /// When that cannot be read.
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
