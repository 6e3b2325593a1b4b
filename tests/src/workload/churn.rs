//! Maps, touches and unmaps on every CPU until told to stop.
//!
//! One process per CPU, not one thread: threads would share an address space, and mostly wait for each other's
//! unmapping.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::cpus::{Cpus, pin};
use super::page_cache::{CHUNK, PageCache};
use super::pages::{faults, round};
use super::signal;

/// How often the parent checks its children, its clock and its signals.
const INTERVAL: Duration = Duration::from_millis(20);

/// Runs `memstock-workload churn` on each CPU until `time` is over or a signal comes.
///
/// # Errors
/// When one cannot be started, or fails.
pub fn run(cpus: &Cpus, nr_pages: usize, time: Option<Duration>) -> Result<()> {
    signal::catch().context("catching signals")?;
    let end = time.map(|time| Instant::now() + time);
    let mut children = Vec::new();
    let mut result = Ok(());
    for cpu in cpus.numbers()? {
        match start(cpu, nr_pages) {
            Ok(child) => children.push(child),
            Err(error) => result = Err(error),
        }
    }
    // Children do not stop by themselves, so one that has ended has failed.
    while result.is_ok() && !signal::caught() && end.is_none_or(|end| Instant::now() < end) {
        let ended = children.iter_mut().any(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            break;
        }
        sleep(INTERVAL);
    }
    for child in &mut children {
        // A child that is not reaped keeps its id, so the signal cannot reach another process.
        if let Ok(None) = child.try_wait() {
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
    }
    for child in &mut children {
        let status = child.wait().context("waiting for the churn on a CPU")?;
        if result.is_ok() && !status.success() {
            result = Err(anyhow::anyhow!("the churn on a CPU ended with {status}"));
        }
    }
    result
}

fn start(cpu: u32, nr_pages: usize) -> Result<Child> {
    let this = std::env::current_exe().context("where this program is")?;
    Command::new(this)
        .args(["churn", "--cpu", &cpu.to_string(), "--pages", &nr_pages.to_string()])
        .spawn()
        .with_context(|| format!("starting the churn on CPU {cpu}"))
}

/// What a round does with its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Round {
    /// Maps, touches and unmaps them.
    Map,
    /// Reads them into the page cache, one at a time, and drops them.
    Cache,
    /// Reads them from the page cache, 128 KiB at a time.
    Read,
}

/// Churns on one CPU until a signal comes, then prints the number of faults. With `counted`, it keeps a count of the
/// pages in the file on standard input.
///
/// # Errors
/// When the CPU is not there, or memory runs out.
pub fn churn(cpu: u32, nr_pages: usize, counted: bool, what: Round) -> Result<()> {
    signal::catch().context("catching signals")?;
    // A parent that is killed cannot end its children.
    set_parent_process_death_signal(Some(Signal::TERM)).context("watching the parent")?;
    pin(cpu)?;
    ensure!(nr_pages > 0, "no pages, no faults");
    let counter = counted.then(|| counter_in(io::stdin())).transpose()?;
    let cache = || PageCache::new(nr_pages).context("a file");
    let mut once: Box<dyn FnMut() -> Result<()>> = match what {
        Round::Map => {
            Box::new(|| round(nr_pages).with_context(|| format!("mapping {nr_pages} pages")))
        }
        Round::Cache => {
            let cache = cache()?;
            Box::new(move || cache.round().context("reading a file"))
        }
        Round::Read => {
            let (cache, mut buffer) = (cache()?, vec![0; CHUNK]);
            Box::new(move || cache.read(&mut buffer).context("reading a file"))
        }
    };
    let before = faults();
    while !signal::caught() {
        once()?;
        if let Some(counter) = counter {
            counter.fetch_add(nr_pages as u64, Relaxed);
        }
    }
    // In one write, so that the lines of two CPUs do not mix.
    let line = format!("cpu {cpu}: {} faults\n", faults() - before);
    io::stderr().write_all(line.as_bytes()).context("writing to standard error")
}

/// A counter in the first bytes of a file, shared with whoever maps it.
///
/// # Errors
/// When the file cannot be mapped.
pub fn counter_in(file: impl AsFd) -> Result<&'static AtomicU64> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let bytes = size_of::<AtomicU64>();
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let start = unsafe { mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, 0) };
    let start = start.context("mapping the counter")?.cast::<AtomicU64>();
    // SAFETY: the mapping is page-aligned and large enough, the file is never truncated, and both
    // stay until the process ends; everyone who maps it uses it only as this atomic.
    Ok(unsafe { &*start })
}
