//! Tasks that do nothing but map, touch and unmap pages for ever, one a CPU, and count. Each is a process of
//! its own, since threads would wait for each other's address space. Must not know what is attached.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::misses::CacheMisses;
use super::slices::Stop;
use crate::host::mapping::Mapping;

/// How long workers may do nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// The life of a worker: pages, so many at a time, on a CPU, counted in the file that is standard input,
/// until it is killed or its parent dies.
///
/// # Errors
/// There is no such CPU, or no memory.
pub fn work(cpu: u32, pages: usize) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask for a signal")?;
    // It may have died before.
    ensure!(getppid().is_some_and(|parent| !parent.is_init()), "the bench is gone");
    let mut cpus = CpuSet::new();
    ensure!((cpu as usize) < CpuSet::MAX_CPU, "there is no CPU {cpu}");
    cpus.set(cpu as usize);
    sched_setaffinity(None, &cpus).with_context(|| format!("cannot move to CPU {cpu}"))?;
    let counter = counter_in(io::stdin().as_fd())?;
    loop {
        Mapping::new(pages).context("cannot map memory")?.touch_all();
        counter.fetch_add(pages as u64, Relaxed);
    }
}

/// A counter in the first bytes of a file, shared with whoever maps it.
fn counter_in(file: impl AsFd) -> Result<&'static AtomicU64> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let bytes = size_of::<AtomicU64>();
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let start = unsafe { mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, 0) };
    let start = start.context("cannot map the counter")?.cast::<AtomicU64>();
    // SAFETY: the mapping is page-aligned and large enough, the file is never made shorter, and both
    // stay until the process ends; all who map it use it as this atomic only.
    Ok(unsafe { &*start })
}

/// Running workers. Killed and reaped on drop.
pub struct Workers {
    children: Vec<Child>,
    counters: Vec<&'static AtomicU64>,
    clocks: Vec<CpuClock>,
    misses: Option<CacheMisses>,
}

/// What the workers did during a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
    /// Pages a second, all workers together. Each is one fault.
    pub rate: f64,
    /// CPU time of a page, ns: what others take of a CPU is not in it.
    pub page_ns: f64,
    /// Cache misses a page; none where they cannot be counted.
    pub misses: Option<f64>,
}

impl Workers {
    /// Starts one on each of `cpus`, in the cgroups with these directories. `memstock` is the program that has
    /// the verb `bench worker`.
    ///
    /// # Errors
    /// One cannot be started, or a cgroup does not take it.
    pub fn start(memstock: &Path, cpus: &[u32], pages: usize, dirs: &[&Path]) -> Result<Self> {
        let mut workers =
            Self { children: Vec::new(), counters: Vec::new(), clocks: Vec::new(), misses: None };
        for cpu in cpus {
            let file = File::from(
                memfd_create("memstock-bench", MemfdFlags::CLOEXEC)
                    .context("cannot make a memfd")?,
            );
            file.set_len(size_of::<AtomicU64>() as u64).context("cannot size a memfd")?;
            workers.counters.push(counter_in(&file)?);
            let mut command = Command::new(memstock);
            command.args(["bench", "worker", &cpu.to_string(), &pages.to_string()]);
            let child = command.stdin(file).stdout(Stdio::null()).spawn();
            let child = child.with_context(|| format!("cannot start {}", memstock.display()))?;
            workers.clocks.push(CpuClock::of(&child)?);
            workers.children.push(child);
        }
        for dir in dirs {
            workers.enter(dir)?;
        }
        workers.misses = CacheMisses::of(workers.children.iter().map(Child::id));
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

    /// Moves them all into the cgroup with this directory.
    ///
    /// # Errors
    /// It does not take them.
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

    /// Whether cache misses are counted.
    pub fn counts_misses(&self) -> bool {
        self.misses.is_some()
    }

    /// Watches them for a while.
    ///
    /// # Errors
    /// A counter cannot be read; the bench was told to end; they stand still.
    pub fn slice(&self, length: Duration, stop: &Stop) -> Result<Done> {
        let misses = || self.misses.as_ref().map(CacheMisses::read).transpose();
        let ran = || self.clocks.iter().map(CpuClock::read).sum::<Result<Duration>>();
        let (missed, ran_before) = (misses()?, ran()?);
        let (start, before) = (Instant::now(), self.pages());
        pause(length, stop)?;
        // On a machine that is much too busy a slice can pass without a turn for them.
        while self.pages() == before {
            ensure!(start.elapsed() < length + PATIENCE, "the workers stand still");
            pause(length, stop)?;
        }
        let (pages, took) = (self.pages() - before, start.elapsed());
        let (ran, after) = (ran()? - ran_before, misses()?);
        let missed = after.zip(missed).map(|(after, before)| (after - before) as f64);
        Ok(Done {
            rate: pages as f64 / took.as_secs_f64(),
            page_ns: ran.as_nanos() as f64 / pages as f64,
            misses: missed.map(|missed| missed / pages as f64),
        })
    }
}

/// The clock of the CPU time of a process.
struct CpuClock(libc::clockid_t);

impl CpuClock {
    fn of(child: &Child) -> Result<Self> {
        let mut clock = 0;
        // SAFETY: it writes the number of a clock to where it is told.
        let error = unsafe { libc::clock_getcpuclockid(child.id().cast_signed(), &raw mut clock) };
        ensure!(error == 0, "a worker has no clock: {}", io::Error::from_raw_os_error(error));
        Ok(Self(clock))
    }

    fn read(&self) -> Result<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: it writes a time to where it is told.
        let result = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        ensure!(result == 0, "cannot read a worker's clock: {}", io::Error::last_os_error());
        Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
    }
}

/// Sleeps, but not much longer than it is wanted.
pub fn pause(length: Duration, stop: &Stop) -> Result<()> {
    let end = Instant::now() + length;
    loop {
        stop.check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended does not mind.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
