//! Drains the kernel's per-CPU batches of pages on their way to or from the LRU lists.
//!
//! Each CPU has several, of up to 31 pages each. A page in a batch is not freed, even without a user, until the batch
//! is full or drained: the last pages of a program that locked its memory stay charged for seconds. The kernel's
//! accounting and memstock's both see that, but a test could not see that everything came back.

use std::ptr;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::PAGE;
use crate::workload::cpus::{allowed, pin};

/// Drains the batches of every CPU that this process may run on.
///
/// # Errors
/// When the kernel refuses, or a CPU goes offline meanwhile.
pub fn drain() -> Result<()> {
    // In a thread of its own, since it changes its CPU and the caller must not.
    let drained = thread::scope(|scope| scope.spawn(drain_each).join());
    drained.map_err(|_| anyhow!("draining the LRU batches panicked"))?
}

fn drain_each() -> Result<()> {
    let length = usize::try_from(PAGE)?;
    let (access, flags) = (ProtFlags::READ, MapFlags::PRIVATE);
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), length, access, flags) }
        .context("mapping a page")?;
    let drained = allowed().and_then(|cpus| {
        cpus.into_iter().try_for_each(|cpu| {
            pin(cpu)?;
            // Any advice on what to reclaim first drains this CPU's batches.
            // SAFETY: the advice is about this function's own mapping, which nothing refers to.
            unsafe { madvise(page, length, Advice::LinuxCold) }.context("MADV_COLD")
        })
    });
    // SAFETY: as above.
    unsafe { munmap(page, length) }.context("unmapping a page").and(drained)
}
