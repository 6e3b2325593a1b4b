//! Tasks that take pages and give them back for ever, one per CPU, and count them (`workload::churn`). Knows nothing of
//! what is attached.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::binaries;
use crate::workload::churn::counter_in;

/// How long workers may do nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// Running workers. Killed and reaped on `Drop`.
pub struct Workers {
    children: Vec<Child>,
    counters: Vec<&'static AtomicU64>,
    clocks: Vec<CpuClock>,
}

/// What the workers did during a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
    /// Pages per second, all workers together. Each that is mapped is one fault.
    pub rate: f64,
    /// CPU time per page, ns; without the time that other tasks take of a CPU.
    pub page_ns: f64,
}

impl Workers {
    /// Starts a worker on each of `cpus`, in the cgroups with these folders. Each maps, touches and unmaps this many
    /// pages.
    ///
    /// # Errors
    /// When one cannot be started or moved.
    pub fn start(cpus: &[u32], pages: usize, dirs: &[&Path]) -> Result<Self> {
        Self::doing("map", cpus, pages, dirs)
    }

    /// The same for another round than `map`: `cache` or `read` (`workload::churn::Round`).
    ///
    /// # Errors
    /// When one cannot be started or moved.
    pub fn doing(round: &str, cpus: &[u32], pages: usize, dirs: &[&Path]) -> Result<Self> {
        let program = binaries::workload()?;
        let mut workers = Self { children: Vec::new(), counters: Vec::new(), clocks: Vec::new() };
        for cpu in cpus {
            let file = File::from(
                memfd_create("memstock-bench", MemfdFlags::CLOEXEC)
                    .context("cannot make a memfd")?,
            );
            file.set_len(size_of::<AtomicU64>() as u64).context("cannot size a memfd")?;
            workers.counters.push(counter_in(&file)?);
            let mut command = Command::new(&program);
            let (cpu, pages) = (cpu.to_string(), pages.to_string());
            command.args(["churn", "--counted", "--round", round]);
            command.args(["--cpu", &cpu, "--pages", &pages]);
            let child = command.stdin(file).stdout(Stdio::null()).spawn();
            let child = child.with_context(|| format!("cannot start {}", program.display()))?;
            workers.clocks.push(CpuClock::of(&child)?);
            workers.children.push(child);
        }
        for dir in dirs {
            workers.enter(dir)?;
        }
        workers.wait_until_all_work()?;
        Ok(workers)
    }

    fn wait_until_all_work(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.counters.iter().any(|counter| counter.load(Relaxed) == 0) {
            for child in &mut self.children {
                if let Some(status) = child.try_wait().context("cannot wait for a worker")? {
                    anyhow::bail!("a worker ended: {status}");
                }
            }
            ensure!(Instant::now() < deadline, "the workers do not begin");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// Moves them all into the cgroup with this folder.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self, dir: &Path) -> Result<()> {
        let procs = dir.join("cgroup.procs");
        for child in &self.children {
            fs::write(&procs, child.id().to_string())
                .with_context(|| format!("cannot write {}", procs.display()))?;
        }
        Ok(())
    }

    /// Pages so far.
    pub fn pages(&self) -> u64 {
        self.counters.iter().map(|counter| counter.load(Relaxed)).sum()
    }

    /// Measures the workers for `length`.
    ///
    /// # Errors
    /// When a counter cannot be read, or the workers make no progress.
    pub fn slice(&self, length: Duration) -> Result<Done> {
        let ran = || self.clocks.iter().map(CpuClock::read).sum::<Result<Duration>>();
        let ran_before = ran()?;
        let (start, before) = (Instant::now(), self.pages());
        std::thread::sleep(length);
        // On an overloaded machine the workers may not run at all during a slice.
        while self.pages() == before {
            ensure!(start.elapsed() < length + PATIENCE, "the workers stand still");
            std::thread::sleep(length);
        }
        let (pages, took) = (self.pages() - before, start.elapsed());
        let ran = ran()? - ran_before;
        Ok(Done {
            rate: pages as f64 / took.as_secs_f64(),
            page_ns: ran.as_nanos() as f64 / pages as f64,
        })
    }
}

/// The CPU-time clock of a process.
struct CpuClock(libc::clockid_t);

impl CpuClock {
    fn of(child: &Child) -> Result<Self> {
        let mut clock = 0;
        // SAFETY: the call writes only to `clock`.
        let error = unsafe { libc::clock_getcpuclockid(child.id().cast_signed(), &raw mut clock) };
        ensure!(error == 0, "a worker has no clock: {}", io::Error::from_raw_os_error(error));
        Ok(Self(clock))
    }

    fn read(&self) -> Result<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes only to `time`.
        let result = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        ensure!(result == 0, "cannot read a worker's clock: {}", io::Error::last_os_error());
        Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Fails if it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
