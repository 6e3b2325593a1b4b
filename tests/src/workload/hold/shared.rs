//! Shared memory without a named file: page cache of the kernel's internal tmpfs.

use std::fs::File;
use std::ptr::NonNull;
use std::{io, ptr};

use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::MapFlags;

use super::Held;
use super::region::{PAGE_SIZE, Region, read_write};

pub(super) fn anonymous(nr_pages: usize) -> Result<Held> {
    let region = Region::anonymous(nr_pages, MapFlags::SHARED)?;
    region.write();
    Ok(Held::region(nr_pages, region))
}

pub(super) fn memfd(nr_pages: usize) -> Result<Held> {
    written(
        File::from(memfd_create(c"memstock-hold", MemfdFlags::CLOEXEC).context("a memfd")?),
        nr_pages,
    )
}

/// Maps and writes an empty file in memory.
pub(super) fn written(file: File, nr_pages: usize) -> Result<Held> {
    file.set_len((nr_pages * PAGE_SIZE).try_into()?).context("the size of a memfd")?;
    let region = Region::of_file(&file, nr_pages, read_write(), MapFlags::SHARED)?;
    region.write();
    Ok(Held::new(nr_pages, move || {
        region.unmap()?;
        // The pages belong to the file, and are freed with its last descriptor.
        drop(file);
        Ok(())
    }))
}

/// The segment outlives this process if it is killed; the harness then removes it.
pub(super) fn sysv(nr_pages: usize) -> Result<Held> {
    let segment = Segment::new(nr_pages * PAGE_SIZE)?;
    for page in 0..nr_pages {
        // SAFETY: within the segment, which is attached and which nothing else refers to.
        unsafe { segment.start.add(page * PAGE_SIZE).write_volatile(1) };
    }
    Ok(Held::new(nr_pages, move || segment.remove()))
}

/// An attached segment.
struct Segment {
    id: libc::c_int,
    start: NonNull<u8>,
}

impl Segment {
    fn new(length: usize) -> Result<Self> {
        // SAFETY: shmget takes numbers only.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, length, 0o600 | libc::IPC_CREAT) };
        if id < 0 {
            bail!("shmget of {length} bytes: {}", io::Error::last_os_error());
        }
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe { libc::shmat(id, ptr::null(), 0) };
        // shmat returns -1 on failure.
        if start.addr() == usize::MAX {
            let error = io::Error::last_os_error();
            let _ = remove(id);
            bail!("shmat: {error}");
        }
        Ok(Self { id, start: NonNull::new(start.cast()).context("a segment at address 0")? })
    }

    fn remove(self) -> Result<()> {
        // SAFETY: attached by `new`, and nothing refers into it.
        if unsafe { libc::shmdt(self.start.as_ptr().cast()) } != 0 {
            bail!("shmdt: {}", io::Error::last_os_error());
        }
        remove(self.id).context("IPC_RMID")
    }
}

/// Removes a System V shared memory segment.
///
/// # Errors
/// When it does not exist, or belongs to another user.
pub(crate) fn remove(id: libc::c_int) -> io::Result<()> {
    // SAFETY: IPC_RMID reads nothing from the third argument.
    match unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
