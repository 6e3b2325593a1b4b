//! What the kernel really does: one run of a program in a fresh cgroup of the kernel's own controller, with a limit set
//! before it starts. Knows nothing of memstock.

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

/// Time limit of a run without a memory limit: far more than any takes.
pub const FREE: Duration = Duration::from_secs(300);
/// Prefix of the cgroups' names. Not that of the tests, since these cgroups exist outside the tests' turn.
const PREFIX: &str = "rehearsal-";
/// Interval of checks whether a program has ended or taken too long.
const LOOK: Duration = Duration::from_millis(5);

/// How long a program may take at a limit: ten times as long as without one.
pub fn patience(wall: Duration) -> Duration {
    // Other load on the host can delay a short program.
    (10 * wall).max(Duration::from_secs(5))
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It succeeded, and nothing was killed.
    Lived,
    /// The kernel killed a part of it.
    Killed,
    /// It ended by itself with an error.
    Failed(i32),
    /// It did not end in time at its limit, and was killed here.
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
    /// RSS of the largest process seen, in bytes.
    pub max_rss: u64,
    /// Bytes that it read from the disk. `workingset_refault_file` would miss what the kernel has forgotten: it also
    /// reclaims its notes of evicted pages, for `mmap` at 82 MiB of 190 of 224 MiB.
    pub read: u64,
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
        write!(f, ", {} read", mib(self.read))
    }
}

/// Runs programs, each time in a cgroup of its own.
pub struct Oracle {
    runs: Cell<u32>,
}

impl Oracle {
    /// `None` if the kernel's controller is not mounted. Clears away what an interrupted bench left.
    pub fn new() -> Result<Option<Self>> {
        for root in [Some(mount()?), mount_v1_memory()?].into_iter().flatten() {
            for left in place::abandoned(&root, PREFIX) {
                kill_all(&left);
                remove(&left);
            }
        }
        if !rustix::process::geteuid().is_root() {
            // The recordings will report that they need root.
            return Ok(Some(Self { runs: Cell::new(0) }));
        }
        let oracle = Self { runs: Cell::new(0) };
        Ok(oracle.cgroup()?.map(|_| oracle))
    }

    fn cgroup(&self) -> Result<Option<KernelCgroup>> {
        self.runs.set(self.runs.get() + 1);
        KernelCgroup::named(&format!("{PREFIX}{}-{}", std::process::id(), self.runs.get()))
    }

    /// Runs it with this limit in bytes and none of its files cached. Kills it after `patience`.
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
        let (start, before) = (Instant::now(), bytes_read()?);
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
            read: bytes_read()? - before,
        };
        place.clear()?;
        // Otherwise the libraries it read in would stay cached, and the next run would not be charged for them.
        cgroup.force_empty()?;
        Ok(run)
    }
}

/// Bytes that this process and those it has waited for, with theirs, read from disks.
fn bytes_read() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let count = io.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(count
        .context("the kernel does not count what is read (CONFIG_TASK_IO_ACCOUNTING)")?
        .parse()?)
}

/// A program and everything it started, killed on `Drop`.
struct Guarded<'a> {
    process: Option<Process>,
    cgroup: &'a KernelCgroup,
}

impl Guarded<'_> {
    /// How it ended and how long it took; `None` if it did not end in time.
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

/// The peak RSS of a process, in bytes; `None` if it has ended.
fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * kib.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        kill_all(self.cgroup.dir());
        // Dropping it reaps it; until then the cgroup is busy.
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

/// Kills all tasks in a cgroup of ours; v1 has no file for that.
fn kill_all(dir: &Path) {
    let tasks = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for task in tasks.lines().filter_map(|task| Pid::from_raw(task.parse().ok()?)) {
        // Fails if it has ended meanwhile.
        let _ = kill_process(task, Signal::KILL);
    }
}
