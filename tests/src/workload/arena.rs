//! Memory in which a first touch is exactly one fault and one page.
//!
//! A fresh mapping also needs page tables, which are charged too. Here they exist from the start and stay: the first
//! page of each 2 MiB, which one page table maps, is touched at the start and kept.

use std::ptr::{self, NonNull};

use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::PAGE;

const PAGE_SIZE: usize = PAGE as usize;
/// Pages that one page table maps.
const TABLE_PAGES: usize = 512;
const TABLE_SIZE: usize = TABLE_PAGES * PAGE_SIZE;

/// Private anonymous memory in small pages, with its page tables. Lives as long as the process.
#[derive(Debug)]
pub struct Arena {
    /// On a boundary of [`TABLE_SIZE`].
    start: NonNull<u8>,
    tables: usize,
    touched: usize,
}

impl Arena {
    /// Room for about `nr_pages`.
    ///
    /// # Errors
    /// When the kernel has no such address space.
    pub fn new(nr_pages: usize) -> io::Result<Self> {
        let tables = nr_pages.div_ceil(TABLE_PAGES - 1);
        let bytes = (tables + 1) * TABLE_SIZE;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE) }?;
        // Otherwise one fault could bring in 512 pages, if the host's huge pages are set to `always`.
        // SAFETY: the advice is about this mapping alone and changes no contents.
        unsafe { madvise(start, bytes, Advice::LinuxNoHugepage) }?;
        let start: *mut u8 = start.cast();
        // SAFETY: one table more than needed is mapped, so the boundary is inside.
        let start = unsafe { start.add(start.align_offset(TABLE_SIZE)) };
        let arena =
            Self { start: NonNull::new(start).ok_or(io::Errno::NOMEM)?, tables, touched: 0 };
        for table in 0..tables {
            arena.write(table * TABLE_SIZE);
        }
        Ok(arena)
    }

    fn write(&self, offset: usize) {
        // SAFETY: within the mapping, which is writable and which nothing else refers to.
        unsafe { self.start.as_ptr().add(offset).write_volatile(1) };
    }

    /// Writes to `nr_pages` untouched pages; false if there are not as many.
    pub fn touch(&mut self, nr_pages: usize) -> bool {
        if self.touched + nr_pages > self.tables * (TABLE_PAGES - 1) {
            return false;
        }
        for page in self.touched..self.touched + nr_pages {
            let (table, entry) = (page / (TABLE_PAGES - 1), page % (TABLE_PAGES - 1));
            self.write(table * TABLE_SIZE + (1 + entry) * PAGE_SIZE);
        }
        self.touched += nr_pages;
        true
    }

    /// Gives back all touched pages.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear(&mut self) -> io::Result<()> {
        for table in 0..self.touched.div_ceil(TABLE_PAGES - 1) {
            // SAFETY: within the mapping, whose contents are not used.
            unsafe {
                let first = self.start.as_ptr().add(table * TABLE_SIZE + PAGE_SIZE);
                madvise(first.cast(), TABLE_SIZE - PAGE_SIZE, Advice::LinuxDontNeed)?;
            }
        }
        self.touched = 0;
        Ok(())
    }
}
