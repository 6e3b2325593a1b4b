//! The kernel's batches of pages on their way to or from its LRU lists, emptied.
//!
//! Each CPU has some, of up to 31 pages each. A page in one is not freed, however long ago its last
//! user has let it go, until the batch is full or something empties it: the last pages of a program
//! that locked its memory stay charged for seconds. That is so for the kernel's accounting and
//! for memstock's alike; it only keeps a test from seeing that everything came back.

use std::ptr;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::PAGE;
use crate::workload::cpus::{Cpus, pin};

/// Empties the batches of every CPU that this process may run on.
///
/// # Errors
/// When the kernel refuses, or a CPU goes offline meanwhile.
pub fn drain() -> Result<()> {
    // In a thread, since it moves about and the caller is to stay where it is.
    let drained = thread::scope(|scope| scope.spawn(drain_each).join());
    drained.map_err(|_| anyhow!("draining the LRU batches panicked"))?
}

fn drain_each() -> Result<()> {
    let length = usize::try_from(PAGE)?;
    let (access, flags) = (ProtFlags::READ, MapFlags::PRIVATE);
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), length, access, flags) }
        .context("mapping a page")?;
    let drained = Cpus::All.numbers().and_then(|cpus| {
        cpus.into_iter().try_for_each(|cpu| {
            pin(cpu)?;
            // Any advice on what to reclaim begins by emptying this CPU's batches.
            // SAFETY: the advice is about the mapping of this function, which nothing refers to.
            unsafe { madvise(page, length, Advice::LinuxCold) }.context("MADV_COLD")
        })
    });
    // SAFETY: as above.
    unsafe { munmap(page, length) }.context("unmapping a page").and(drained)
}
