//! Fresh small pages of this process, for callers that need to cause page faults. Must not know what they are for.

use std::io;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::host::page_size;

/// Private anonymous memory: each first touch of a page is one fault. Unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    nr_pages: usize,
}

impl Mapping {
    /// Maps this many pages and touches none.
    ///
    /// # Errors
    /// There is not enough address space.
    pub fn new(nr_pages: usize) -> io::Result<Self> {
        let bytes = nr_pages * page_size() as usize;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE) }?;
        let mapping = Self { start: start.cast(), nr_pages };
        // SAFETY: the advice is about this mapping alone and changes no contents. A kernel without
        // huge pages refuses it, and needs it not.
        let _ = unsafe { madvise(start, bytes, Advice::LinuxNoHugepage) };
        Ok(mapping)
    }

    /// Writes to page `n`, or to the last one if there are fewer; returns its address.
    pub fn touch(&self, n: usize) -> *const u8 {
        let n = n.min(self.nr_pages.saturating_sub(1));
        // SAFETY: within the mapping, which is writable and which nobody else knows of.
        let page = unsafe { self.start.add(n * page_size() as usize) };
        // SAFETY: as above.
        unsafe { page.write_volatile(1) };
        page
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let bytes = self.nr_pages * page_size() as usize;
        // SAFETY: the mapping is this value's own, and nothing refers into it.
        let _ = unsafe { munmap(self.start.cast(), bytes) };
    }
}
