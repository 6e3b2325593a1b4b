//! Private anonymous memory in small pages.

use std::fs::File;
use std::io::{self, Read};

use anyhow::{Context, Result};
use rustix::mm::{Advice, MapFlags};

use super::region::Region;
use super::{Held, Unavailable};

pub(super) fn write(nr_pages: usize) -> Result<Held> {
    let region = Region::private(nr_pages)?;
    region.write();
    Ok(Held::region(nr_pages, region))
}

pub(super) fn read(nr_pages: usize) -> Result<Held> {
    let region = Region::private(nr_pages)?;
    region.read();
    Ok(Held::region(0, region))
}

pub(super) fn read_write(nr_pages: usize) -> Result<Held> {
    let region = Region::private(nr_pages)?;
    region.read();
    region.write();
    Ok(Held::region(nr_pages, region))
}

pub(super) fn locked(nr_pages: usize) -> Result<Held> {
    let region = Region::anonymous(nr_pages, MapFlags::PRIVATE | MapFlags::LOCKED)?;
    Ok(Held::region(nr_pages, region))
}

/// Unavailable if there is no io_uring, or it is not allowed.
pub(super) fn pinned(nr_pages: usize) -> Result<Held> {
    let region = Region::private(nr_pages)?;
    let pin = match region.pin() {
        Ok(pin) => pin,
        Err(error) => return Err(Unavailable(format!("no io_uring: {error}")).into()),
    };
    Ok(Held::new(nr_pages, move || {
        drop(pin);
        region.unmap()
    }))
}

/// Unavailable before Linux 5.6.
pub(super) fn without_io(nr_pages: usize) -> Result<Held> {
    /// `include/uapi/linux/prctl.h`.
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    let flushes = |on: libc::c_ulong| {
        // SAFETY: the call takes numbers.
        let done = unsafe { libc::prctl(PR_SET_IO_FLUSHER, on, 0, 0, 0) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    flushes(1).map_err(|error| Unavailable(format!("no PR_SET_IO_FLUSHER: {error}")))?;
    let held = write(nr_pages);
    flushes(0).context("PR_SET_IO_FLUSHER")?;
    held
}

pub(super) fn mlock(nr_pages: usize) -> Result<Held> {
    let region = Region::private(nr_pages)?;
    region.lock()?;
    Ok(Held::region(nr_pages, region))
}

pub(super) fn populate(nr_pages: usize) -> Result<Held> {
    let region = Region::anonymous(nr_pages, MapFlags::PRIVATE | MapFlags::POPULATE)?;
    Ok(Held::region(nr_pages, region))
}

/// The kernel faults the memory in when it writes to it.
pub(super) fn read_into(nr_pages: usize) -> Result<Held> {
    let mut region = Region::private(nr_pages)?;
    let mut zeros = File::open("/dev/zero").context("/dev/zero")?;
    zeros.read_exact(region.bytes()).context("reading /dev/zero")?;
    Ok(Held::region(nr_pages, region))
}

pub(super) fn dontneed(nr_pages: usize) -> Result<Held> {
    let region = Region::private(nr_pages)?;
    region.write();
    region.advise(Advice::LinuxDontNeed).context("MADV_DONTNEED")?;
    region.write();
    Ok(Held::region(nr_pages, region))
}

/// The kernel takes such pages when it is short of memory, or else when they are unmapped.
pub(super) fn madv_free(nr_pages: usize) -> Result<Held> {
    let region = Region::private(nr_pages)?;
    region.write();
    Ok(Held::new(nr_pages, move || {
        region.advise(Advice::LinuxFree).context("MADV_FREE")?;
        region.unmap()
    }))
}

pub(super) fn mremap(nr_pages: usize) -> Result<Held> {
    let mut region = Region::private(nr_pages.div_ceil(2))?;
    region.write();
    region.grow(nr_pages)?;
    region.write();
    region.relocate()?;
    // The pages moved along: this costs no fault.
    region.write();
    Ok(Held::region(nr_pages, region))
}
