//! Maps, touches and unmaps on one CPU until told to stop.
//!
//! Whoever wants it on several starts a process for each, not a thread: threads would share an address space, and mostly
//! wait for each other's unmapping.

use std::io;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::cpus::pin;
use super::page_cache::{CHUNK, PageCache};
use super::pages::round;
use super::signal;

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

/// Churns on one CPU until a signal comes. With `counted`, it keeps a count of the pages in the file on standard input.
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
    while !signal::caught() {
        once()?;
        if let Some(counter) = counter {
            counter.fetch_add(nr_pages as u64, Relaxed);
        }
    }
    Ok(())
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
