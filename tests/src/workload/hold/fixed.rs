//! Page cache that the kernel does not ask to be movable, and cannot take back: secret memory, files of ramfs and the
//! targets of its symbolic links, and the rings of asynchronous I/O.

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

/// Where `memfd_secret(2)` is not there, or not switched on.
pub(super) fn secret(nr_pages: usize) -> Result<Held> {
    // SAFETY: the call takes a number.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(Unavailable(format!("no secret memory: {error}")).into());
    }
    // SAFETY: it is new, and nobody else's.
    written(File::from(unsafe { OwnedFd::from_raw_fd(fd.try_into()?) }), nr_pages)
}

/// A ramfs that nobody else sees; it goes with its descriptor.
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

/// Each target has a page of its own.
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

/// `struct io_event`, and the head of a ring (`struct aio_ring` in fs/aio.c).
const RING_BYTES: usize = 32;

/// A ring has room for twice as many events as were asked for, and two more (`aio_setup_ring`, and before it
/// `ioctx_alloc`).
pub(super) fn rings(nr_pages: usize) -> Result<Held> {
    let events = nr_pages * (PAGE_SIZE / RING_BYTES) / 2 - 2;
    let pages = ((2 * events + 2) * RING_BYTES + RING_BYTES).div_ceil(PAGE_SIZE);
    let mut context: libc::c_ulong = 0;
    // SAFETY: it writes one word, which is ours.
    if unsafe { libc::syscall(libc::SYS_io_setup, events, &raw mut context) } < 0 {
        let error = io::Error::last_os_error();
        return Err(Unavailable(format!("no rings for asynchronous I/O: {error}")).into());
    }
    Ok(Held::new(pages, move || {
        // SAFETY: it takes a number, and nobody uses the ring.
        if unsafe { libc::syscall(libc::SYS_io_destroy, context) } < 0 {
            bail!("io_destroy: {}", io::Error::last_os_error());
        }
        Ok(())
    }))
}
