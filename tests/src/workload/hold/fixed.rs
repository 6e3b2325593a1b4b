//! Page cache that the kernel allocates as unmovable and cannot reclaim: secret memory, files and symbolic links of
//! ramfs, and the rings of asynchronous I/O.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Mode, OFlags, openat, symlinkat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::file::fill;
use super::region::PAGE_SIZE;
use super::shared::written;
use super::{Held, Unavailable};

/// Unavailable if the kernel lacks `memfd_secret(2)`, or it is not enabled.
pub(super) fn secret(nr_pages: usize) -> Result<Held> {
    // SAFETY: the call takes a number.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(Unavailable(format!("no secret memory: {error}")).into());
    }
    // SAFETY: the kernel just made this descriptor, and nothing else owns it.
    written(File::from(unsafe { OwnedFd::from_raw_fd(fd.try_into()?) }), nr_pages)
}

/// A ramfs that is mounted nowhere; it goes with its descriptor.
fn ramfs() -> Result<OwnedFd> {
    let ramfs = fsopen("ramfs", FsOpenFlags::FSOPEN_CLOEXEC).context("a ramfs")?;
    fsconfig_create(&ramfs).context("a ramfs")?;
    fsmount(&ramfs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).context("a ramfs")
}

pub(super) fn ramfs_file(nr_pages: usize) -> Result<Held> {
    let root = ramfs()?;
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(openat(&root, "file", flags, Mode::RUSR | Mode::WUSR)?);
    fill(&file, nr_pages)?;
    Ok(Held::new(nr_pages, move || {
        drop((file, root));
        Ok(())
    }))
}

/// Each link's target has a page of its own.
pub(super) fn symlinks(nr_pages: usize) -> Result<Held> {
    let root = ramfs()?;
    for link in 0..nr_pages {
        symlinkat("target", &root, link.to_string()).context("a symbolic link")?;
    }
    Ok(Held::new(nr_pages, move || {
        drop(root);
        Ok(())
    }))
}

/// Size of `struct io_event`, and of a ring's header (`struct aio_ring` in fs/aio.c).
const RING_BYTES: usize = 32;

/// A ring has room for twice the events asked for, and two more (`ioctx_alloc`, then `aio_setup_ring`).
pub(super) fn rings(nr_pages: usize) -> Result<Held> {
    let events = nr_pages * (PAGE_SIZE / RING_BYTES) / 2 - 2;
    let pages = ((2 * events + 2) * RING_BYTES + RING_BYTES).div_ceil(PAGE_SIZE);
    let mut context: libc::c_ulong = 0;
    // SAFETY: the call writes only to `context`.
    if unsafe { libc::syscall(libc::SYS_io_setup, events, &raw mut context) } < 0 {
        let error = io::Error::last_os_error();
        return Err(Unavailable(format!("no rings for asynchronous I/O: {error}")).into());
    }
    Ok(Held::new(pages, move || {
        // SAFETY: the call takes a number, and nothing uses the ring.
        if unsafe { libc::syscall(libc::SYS_io_destroy, context) } < 0 {
            bail!("io_destroy: {}", io::Error::last_os_error());
        }
        Ok(())
    }))
}
