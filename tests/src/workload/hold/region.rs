//! A memory mapping and the system calls on it. All of `hold`'s `unsafe` code for mappings is here.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;

use anyhow::{Context, Result, ensure};
use rustix::mm::{
    Advice, MapFlags, MremapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, mremap,
    mremap_fixed, munmap,
};

use crate::PAGE;

pub(super) const PAGE_SIZE: usize = PAGE as usize;

/// Mapped memory that only this value refers to. Unmapped on `Drop`.
#[derive(Debug)]
pub(super) struct Region {
    start: NonNull<u8>,
    length: usize,
}

impl Region {
    /// Fresh anonymous memory.
    pub(super) fn anonymous(nr_pages: usize, flags: MapFlags) -> Result<Self> {
        let length = bytes(nr_pages)?;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), length, read_write(), flags) };
        Self::mapped(start, length)
    }

    /// Fresh private memory of this process.
    pub(super) fn private(nr_pages: usize) -> Result<Self> {
        Self::anonymous(nr_pages, MapFlags::PRIVATE)
    }

    /// The first `nr_pages` of a file.
    pub(super) fn of_file(
        file: impl AsFd,
        nr_pages: usize,
        access: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self> {
        let length = bytes(nr_pages)?;
        // SAFETY: as above. The file is the caller's and is not truncated, so no access is beyond its end, which would
        // raise SIGBUS.
        let start = unsafe { mmap(ptr::null_mut(), length, access, flags, file, 0) };
        Self::mapped(start, length)
    }

    /// Fresh private memory whose address is a multiple of `alignment`.
    pub(super) fn aligned(nr_pages: usize, alignment: usize) -> Result<Self> {
        let mut region = Self::private(nr_pages + alignment / PAGE_SIZE)?;
        let before = region.start.as_ptr().align_offset(alignment) / PAGE_SIZE;
        let end = region.nr_pages();
        region.punch(0, before)?;
        region.punch(before + nr_pages, end)?;
        // SAFETY: within the mapping, which has room for `nr_pages` behind the aligned address.
        region.start = unsafe { region.start.add(before * PAGE_SIZE) };
        region.length = nr_pages * PAGE_SIZE;
        Ok(region)
    }

    /// As [`Self::aligned`], of shared memory.
    pub(super) fn aligned_shared(nr_pages: usize, alignment: usize) -> Result<Self> {
        let region = Self::aligned(nr_pages, alignment)?;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: it replaces this value's own mapping, which nothing else refers to.
        unsafe { mmap_anonymous(region.start.as_ptr().cast(), region.length, read_write(), flags) }
            .context("mapping shared memory")?;
        Ok(region)
    }

    fn mapped(start: rustix::io::Result<*mut core::ffi::c_void>, length: usize) -> Result<Self> {
        let start = start.with_context(|| format!("mapping {length} bytes"))?;
        let start = NonNull::new(start.cast()).context("a mapping at address 0")?;
        Ok(Self { start, length })
    }

    /// Its pages, including punched holes.
    pub(super) fn nr_pages(&self) -> usize {
        self.length / PAGE_SIZE
    }

    /// Writes to each page once.
    pub(super) fn write(&self) {
        self.write_every(1, 0);
    }

    /// Writes to page `first` and every `step`th page after it.
    pub(super) fn write_every(&self, step: usize, first: usize) {
        for page in (first..self.nr_pages()).step_by(step) {
            // SAFETY: within the mapping, which is writable where this is called, and which nothing
            // else in this process refers to.
            unsafe { self.start.add(page * PAGE_SIZE).write_volatile(1) };
        }
    }

    /// Reads from each page once.
    pub(super) fn read(&self) {
        for page in 0..self.nr_pages() {
            // SAFETY: within the mapping, which is readable.
            unsafe { self.start.add(page * PAGE_SIZE).read_volatile() };
        }
    }

    /// All its bytes. Making the slice touches no page.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is this value's own, is readable and writable where this is called,
        // and zeros or what was written are valid bytes.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    /// Locks it into memory, which faults in all of it.
    pub(super) fn lock(&self) -> Result<()> {
        // SAFETY: locking changes no contents.
        unsafe { mlock(self.start.as_ptr().cast(), self.length) }.context("mlock")
    }

    /// Pins it for long, which faults in all of it, as a buffer of a new ring of io_uring; until that is closed.
    pub(super) fn pin(&self) -> io::Result<OwnedFd> {
        /// Room for `struct io_uring_params`.
        const PARAMETERS: usize = 120;
        const ENTRIES: u32 = 4;
        /// `IORING_REGISTER_BUFFERS`.
        const BUFFERS: u32 = 0;
        let mut parameters = [0_u64; PARAMETERS / 8];
        // SAFETY: the call writes to the parameters only.
        let ring =
            unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, parameters.as_mut_ptr()) };
        let ring = i32::try_from(ring).ok().filter(|&ring| ring >= 0);
        let ring = ring.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just opened it.
        let ring = unsafe { OwnedFd::from_raw_fd(ring) };
        let all = libc::iovec { iov_base: self.start.as_ptr().cast(), iov_len: self.length };
        // SAFETY: it reads `all`; the mapping may change by nobody's reads or writes, as none are submitted.
        let done = unsafe {
            libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), BUFFERS, &raw const all, 1)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(ring) }
    }

    /// Calls madvise(2) on it, which may discard the contents.
    pub(super) fn advise(&self, advice: Advice) -> rustix::io::Result<()> {
        // SAFETY: the mapping is this value's own, and any bytes are valid contents.
        unsafe { madvise(self.start.as_ptr().cast(), self.length, advice) }
    }

    /// Grows it, moving it if necessary.
    pub(super) fn grow(&mut self, nr_pages: usize) -> Result<()> {
        let length = bytes(nr_pages)?;
        let start = self.start.as_ptr().cast();
        // SAFETY: the mapping is this value's own; nothing refers into it while it moves.
        let start = unsafe { mremap(start, self.length, length, MremapFlags::MAYMOVE) };
        self.start = NonNull::new(start.context("mremap to grow")?.cast()).context("address 0")?;
        self.length = length;
        Ok(())
    }

    /// Moves it to another address.
    pub(super) fn relocate(&mut self) -> Result<()> {
        let target = Self::private(self.nr_pages())?;
        let (start, place) = (self.start.as_ptr().cast(), target.start.as_ptr().cast());
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: both mappings are ours and nothing refers into them. The second is replaced.
        unsafe { mremap_fixed(start, self.length, self.length, flags, place) }
            .context("mremap to move")?;
        self.start = target.start;
        // `self` owns its mapping now.
        std::mem::forget(target);
        Ok(())
    }

    /// Unmaps the pages from `first` to before `end`, which must not be accessed from then on.
    pub(super) fn punch(&mut self, first: usize, end: usize) -> Result<()> {
        ensure!(first <= end && end <= self.nr_pages(), "pages {first} to {end} are not in it");
        if first == end {
            return Ok(());
        }
        // SAFETY: within the mapping; the caller must not access the pages again.
        unsafe {
            munmap(self.start.add(first * PAGE_SIZE).as_ptr().cast(), (end - first) * PAGE_SIZE)
        }
        .context("munmap of a part")
    }
}

impl Region {
    /// Unmaps all of it, including holes.
    pub(super) fn unmap(self) -> Result<()> {
        let (start, length) = (self.start, self.length);
        std::mem::forget(self);
        // SAFETY: the mapping was this value's own and nothing refers into it. Holes contain no other
        // mapping: nothing is mapped between punching and this.
        unsafe { munmap(start.as_ptr().cast(), length) }.context("munmap")
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: as in `unmap`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn bytes(nr_pages: usize) -> Result<usize> {
    nr_pages.checked_mul(PAGE_SIZE).with_context(|| format!("{nr_pages} pages are too many"))
}

pub(super) fn read_write() -> ProtFlags {
    ProtFlags::READ | ProtFlags::WRITE
}
