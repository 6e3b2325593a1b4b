//! Pages that are mapped, touched and unmapped, and the kernel's count of the faults.

use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::PAGE;

const PAGE_SIZE: usize = PAGE as usize;

/// Fresh private anonymous memory in small pages: each first touch is one fault. Unmapped on
/// `Drop`.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    nr_pages: usize,
}

impl Mapping {
    /// Maps `nr_pages` and touches none.
    ///
    /// # Errors
    /// When the kernel has no such address space.
    pub fn new(nr_pages: usize) -> io::Result<Self> {
        let length = nr_pages.checked_mul(PAGE_SIZE).ok_or(io::Errno::NOMEM)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), length, protection, MapFlags::PRIVATE) }?;
        let start = NonNull::new(start.cast()).ok_or(io::Errno::NOMEM)?;
        let mapping = Self { start, nr_pages };
        // Otherwise one fault could bring in 512 pages, if the host's huge pages are set to `always`.
        // SAFETY: the advice is about this mapping alone and changes no contents.
        unsafe { madvise(start.as_ptr().cast(), length, Advice::LinuxNoHugepage) }?;
        Ok(mapping)
    }

    /// Lets the kernel take the pages when it needs memory (`MADV_FREE`).
    ///
    /// # Errors
    /// When the kernel does not support it.
    pub fn free_lazily(&self) -> io::Result<()> {
        let length = self.nr_pages * PAGE_SIZE;
        // SAFETY: the contents of this mapping are not used.
        unsafe { madvise(self.start.as_ptr().cast(), length, Advice::LinuxFree) }
    }

    /// Writes to each page once.
    pub fn touch(&self) {
        for page in 0..self.nr_pages {
            // SAFETY: within the mapping, which is writable and which nothing else refers to.
            unsafe { self.start.as_ptr().add(page * PAGE_SIZE).write_volatile(1) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and nothing refers into it. Unmapping fails only when it
        // would need another VMA and there is no room for one.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.nr_pages * PAGE_SIZE) };
    }
}

/// Maps, touches and unmaps `nr_pages`.
///
/// # Errors
/// When the kernel has no such address space.
pub fn round(nr_pages: usize) -> io::Result<()> {
    Mapping::new(nr_pages)?.touch();
    Ok(())
}

/// Minor and major faults of this process so far.
pub fn faults() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage writes only to `usage`, and should it fail (it does not for RUSAGE_SELF), all
    // zeros are a valid value.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    u64::try_from(usage.ru_minflt + usage.ru_majflt).unwrap_or(0)
}
