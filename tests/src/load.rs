//! Varied load in many cgroups at once, which can be frozen at any moment and go on later.
//!
//! Each driver is a thread of the test that keeps one process busy. Together they should do something different at
//! every moment. Nothing here looks at memstock.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, ensure};

use crate::holder::Unavailable;
use crate::poll::{SOON, try_poll_until};
use crate::process::memstock;
use crate::workload::hold::Mode;
use crate::{Holder, KernelCgroup, Task, TestCgroup};

/// A frozen cgroup, with those below it. Thawed on `Drop`.
#[derive(Debug)]
pub struct Frozen {
    dir: PathBuf,
}

impl Frozen {
    /// Freezes the cgroup and waits until all its tasks are frozen.
    ///
    /// # Errors
    /// When they are not in time.
    pub fn freeze(cgroup: &TestCgroup) -> Result<Self> {
        let frozen = Self { dir: cgroup.dir().to_owned() };
        frozen.write("1")?;
        let events = frozen.dir.join("cgroup.events");
        try_poll_until(SOON, "all tasks to be frozen", || {
            let text = fs::read_to_string(&events).context("cgroup.events")?;
            Ok(text.lines().any(|line| line == "frozen 1").then_some(()))
        })?;
        Ok(frozen)
    }

    fn write(&self, value: &str) -> Result<()> {
        let file = self.dir.join("cgroup.freeze");
        fs::write(&file, value).with_context(|| file.display().to_string())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = self.write("0") {
            eprintln!("{error:#}");
        }
    }
}

/// A thread that repeats one piece of work.
#[derive(Debug)]
struct Driver {
    what: String,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

/// Running drivers. `Drop` ends them; frozen cgroups must be thawed before.
#[derive(Debug, Default)]
pub struct Load {
    stop: Arc<AtomicBool>,
    drivers: Vec<Driver>,
}

impl Load {
    /// Repeats `work` in a new thread until the end.
    pub fn drive(&mut self, what: &str, mut work: impl FnMut() -> Result<()> + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        let rounds = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&rounds);
        let thread = thread::spawn(move || {
            while !stop.load(Relaxed) {
                work()?;
                counter.fetch_add(1, Relaxed);
            }
            Ok(())
        });
        self.drivers.push(Driver { what: what.to_owned(), rounds, thread });
    }

    /// Rounds that the drivers of this name have completed so far.
    pub fn rounds(&self, what: &str) -> u64 {
        let drivers = self.drivers.iter().filter(|driver| driver.what == what);
        drivers.map(|driver| driver.rounds.load(Relaxed)).sum()
    }

    /// Adds a [`Holder`] that gets its memory and gives it back. Returns the reason if the host cannot do that.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn hold(
        &mut self,
        mode: Mode,
        pages: u32,
        cgroup: &TestCgroup,
        kernel: Option<&KernelCgroup>,
    ) -> Result<Option<String>> {
        let mut builder = Holder::of(mode).pages(pages).cgroup(cgroup);
        if let Some(kernel) = kernel {
            builder = builder.kernel(kernel);
        }
        let mut holder = builder.start().with_context(|| mode.name())?;
        match holder.get().and_then(|_| holder.give()) {
            Err(error) if error.is::<Unavailable>() => return Ok(Some(error.to_string())),
            tried => tried.with_context(|| mode.name())?,
        }
        self.drive(&mode.name(), move || {
            holder.get()?;
            holder.give()
        });
        Ok(None)
    }

    /// Adds a task that maps, touches and unmaps without end, while it is moved from cgroup to cgroup.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn wander(
        &mut self,
        cgroups: &[&TestCgroup],
        kernel: Option<&KernelCgroup>,
        cpu: u32,
    ) -> Result<()> {
        let first = *cgroups.first().context("nowhere to be")?;
        let mut task = match kernel {
            Some(kernel) => Task::start_in_both(first, kernel, Some(cpu))?,
            None => Task::start(first, Some(cpu))?,
        };
        let mut places: Vec<PathBuf> = cgroups.iter().map(|c| c.dir().to_owned()).collect();
        self.drive("a task that is moved", move || {
            task.churn()?;
            places.rotate_left(1);
            migrate(task.id(), &places[0])?;
            ensure!(task.pause()? > 0, "it did nothing");
            // Pages that it keeps until it is in another cgroup.
            task.touch(100)?;
            places.rotate_left(1);
            migrate(task.id(), &places[0])?;
            task.ask("drop").map(drop)
        });
        Ok(())
    }

    /// Adds a task whose children run a program and end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self, cgroup: &TestCgroup, kernel: Option<&KernelCgroup>) -> Result<()> {
        let mut task = match kernel {
            Some(kernel) => Task::start_in_both(cgroup, kernel, None)?,
            None => Task::start(cgroup, None)?,
        };
        self.drive("a task with children", move || task.ask("spawn 5").map(drop));
        Ok(())
    }

    /// Adds continuous drains of all CPUs' stocks. Returns the counter of drains.
    pub fn drain(&mut self) -> Arc<AtomicU64> {
        const REPEAT: u64 = 1000;
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        self.drive("memstock drain", move || {
            let repeat = REPEAT.to_string();
            let drain = memstock(["drain", "--repeat", &repeat, "--json"])?.finish(3 * SOON)?;
            ensure!(drain.code() == 0, "{drain:?}");
            counter.fetch_add(REPEAT, Relaxed);
            Ok(())
        });
        count
    }

    /// Checks that all drivers are still running.
    ///
    /// # Errors
    /// That of a driver that failed.
    pub fn check(&mut self) -> Result<()> {
        if self.drivers.iter().any(|driver| driver.thread.is_finished()) {
            self.end()?;
        }
        Ok(())
    }

    /// Ends all drivers, each after its current round.
    ///
    /// # Errors
    /// That of a driver that failed, or completed no round.
    pub fn end(&mut self) -> Result<()> {
        self.stop.store(true, Relaxed);
        let mut result = Ok(());
        for Driver { what, rounds, thread } in self.drivers.drain(..) {
            let ended = thread.join().unwrap_or_else(|_| Err(anyhow!("it panicked")));
            let ended = ended.and_then(|()| {
                let rounds = rounds.load(Relaxed);
                eprintln!("{what}: {rounds} rounds");
                ensure!(rounds > 0, "it completed no round");
                Ok(())
            });
            result = result.and(ended.context(what));
        }
        result
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Moves a process into the cgroup with this folder.
///
/// # Errors
/// When the kernel refuses.
pub fn migrate(pid: u32, dir: &Path) -> Result<()> {
    let file = dir.join("cgroup.procs");
    fs::write(&file, pid.to_string()).with_context(|| format!("{pid} to {}", file.display()))
}
