//! The kernel's word: one run of a program in a fresh cgroup of the kernel's own controller, with a limit that is
//! set before it starts. Knows nothing of memstock.

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use memstock_tests::cgroup::{mount, mount_v1_memory};
use memstock_tests::kernel_cgroup::remove;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::{Finished, Process, Program as Command};
use memstock_tests::task::enter_dir;
use memstock_tests::{KernelCgroup, PAGE};
use rustix::process::{Pid, Signal, kill_process};

use crate::place::{self, Place};
use crate::programs::Program;
use crate::table::mib;

/// For a run without a limit: far more than any takes.
pub const FREE: Duration = Duration::from_secs(300);
/// What the names of the cgroups begin with. Not as those of the tests: these are there without their turn.
const PREFIX: &str = "rehearsal-";
/// Between two looks whether a program has ended, or has been at it for too long.
const LOOK: Duration = Duration::from_millis(5);

/// How long a program may take at a limit: ten times what it takes without.
pub fn patience(wall: Duration) -> Duration {
    // A short one is held up by what else the host does.
    (10 * wall).max(Duration::from_secs(5))
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself and well, and nothing was killed on the way.
    Lived,
    /// The kernel killed a part of it.
    Killed,
    /// By itself, but not well.
    Failed(i32),
    /// Not at all: it made no headway at its limit, and was ended here.
    Stuck,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub end: End,
    pub wall: Duration,
    /// How often a charge met the limit.
    pub hits: u64,
    /// The most that was charged, in bytes.
    pub peak: u64,
    /// Of the largest process that was seen, in bytes.
    pub max_rss: u64,
    /// Bytes of page cache that came back after they had been reclaimed.
    pub reread: u64,
}

impl Run {
    pub fn lived(&self) -> bool {
        self.end == End::Lived
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Lived => write!(f, "lived")?,
            End::Killed => write!(f, "killed")?,
            End::Failed(code) => write!(f, "failed with {code}")?,
            End::Stuck => write!(f, "stuck")?,
        }
        write!(f, ", {:.1} s, {} hits", self.wall.as_secs_f64(), self.hits)?;
        if self.reread > 0 { write!(f, ", {} read again", mib(self.reread)) } else { Ok(()) }
    }
}

/// Runs programs, each time in a cgroup of its own.
pub struct Oracle {
    runs: Cell<u32>,
}

impl Oracle {
    /// None where the kernel's controller is not mounted. Clears away what an interrupted bench left.
    pub fn new() -> Result<Option<Self>> {
        for root in [Some(mount()?), mount_v1_memory()?].into_iter().flatten() {
            for left in place::abandoned(&root, PREFIX) {
                kill_all(&left);
                remove(&left);
            }
        }
        if !rustix::process::geteuid().is_root() {
            // The recordings say that they need root.
            return Ok(Some(Self { runs: Cell::new(0) }));
        }
        let oracle = Self { runs: Cell::new(0) };
        Ok(oracle.cgroup()?.map(|_| oracle))
    }

    fn cgroup(&self) -> Result<Option<KernelCgroup>> {
        self.runs.set(self.runs.get() + 1);
        KernelCgroup::named(&format!("{PREFIX}{}-{}", std::process::id(), self.runs.get()))
    }

    /// Runs it with this limit in bytes, with none of its files in the cache, and ends it after `patience`.
    pub fn run(
        &self,
        place: &Place,
        program: &Program,
        limit: Option<u64>,
        patience: Duration,
    ) -> Result<Run> {
        place.refresh(program)?;
        let cgroup = self.cgroup()?.context("the kernel's memory controller is gone")?;
        if let Some(limit) = limit {
            cgroup.limit(Some(limit / PAGE))?;
        }
        let mut command = place.shell(program.script);
        enter_dir(&mut command, cgroup.dir())?;
        let start = Instant::now();
        let started = Guarded { process: Some(Command::from(command).start()?), cgroup: &cgroup };
        let mut max_rss = 0;
        let (finished, wall) = started.finish(start, patience, &mut max_rss)?;
        let run = Run {
            end: match finished {
                None => End::Stuck,
                Some(_) if cgroup.oom_kills()? > 0 => End::Killed,
                Some(finished) if finished.code() != 0 => End::Failed(finished.code()),
                Some(_) => End::Lived,
            },
            wall,
            hits: cgroup.limit_hits()?,
            peak: cgroup.peak_pages()? * PAGE,
            max_rss,
            reread: refaults(cgroup.dir())? * PAGE,
        };
        place.clear()?;
        // Else the libraries that it brought in would be there for the next run, and be charged to nobody.
        cgroup.force_empty()?;
        Ok(run)
    }
}

/// Pages of files that came back after they had been reclaimed.
fn refaults(dir: &Path) -> Result<u64> {
    let stat = fs::read_to_string(dir.join("memory.stat"))?;
    let count = stat.lines().find_map(|line| line.strip_prefix("workingset_refault_file "));
    Ok(count.context("the kernel does not count what comes back")?.parse()?)
}

/// A program and all that it started, which ends with this.
struct Guarded<'a> {
    process: Option<Process>,
    cgroup: &'a KernelCgroup,
}

impl Guarded<'_> {
    /// How it ended, and after what time; without the former, if it had to be ended.
    fn finish(
        mut self,
        start: Instant,
        patience: Duration,
        max_rss: &mut u64,
    ) -> Result<(Option<Finished>, Duration)> {
        let process = self.process.as_mut().context("no process")?;
        while start.elapsed() < patience {
            if process.ended()?.is_some() {
                let wall = start.elapsed();
                return Ok((Some(process.wait(SOON)?), wall));
            }
            let seen = self.cgroup.tasks()?.into_iter().filter_map(high_water).max();
            *max_rss = seen.unwrap_or(0).max(*max_rss);
            std::thread::sleep(LOOK);
        }
        Ok((None, start.elapsed()))
    }
}

/// The largest RSS of a process so far, in bytes; none of one that has ended.
fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * kib.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        kill_all(self.cgroup.dir());
        // Reaped: until then a cgroup is busy with it.
        self.process = None;
        let empty = try_poll_until(SOON, "the last task of a run", || {
            kill_all(self.cgroup.dir());
            Ok(self.cgroup.tasks()?.is_empty().then_some(()))
        });
        if let Err(error) = empty {
            eprintln!("{error:#}");
        }
    }
}

/// Kills what is in a cgroup of ours; v1 has no file for that.
fn kill_all(dir: &Path) {
    let tasks = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for task in tasks.lines().filter_map(|task| Pid::from_raw(task.parse().ok()?)) {
        // One that has ended meanwhile does not mind.
        let _ = kill_process(task, Signal::KILL);
    }
}
