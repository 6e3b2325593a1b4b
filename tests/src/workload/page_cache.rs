//! Pages of page cache that are read, and dropped or read again.

use std::fs::File;
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Advice, fadvise};
use rustix::io;

use crate::PAGE;

/// Bytes of a large read.
pub const CHUNK: usize = 128 << 10;

/// A sparse file, so that reading it waits for no disk.
#[derive(Debug)]
pub struct PageCache {
    file: File,
    nr_pages: u64,
}

impl PageCache {
    /// Makes the file. It has no name.
    ///
    /// # Errors
    /// When no file can be made in `/var/tmp`.
    pub fn new(nr_pages: usize) -> std::io::Result<Self> {
        let (file, nr_pages) = (tempfile::tempfile_in("/var/tmp")?, nr_pages as u64);
        file.set_len(nr_pages * PAGE)?;
        // Without read-ahead, so that each page is added by itself.
        fadvise(&file, 0, None, Advice::Random)?;
        Ok(Self { file, nr_pages })
    }

    /// Reads all pages, [`CHUNK`] at a time, and leaves them in the page cache.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, buffer: &mut [u8]) -> std::io::Result<()> {
        for at in (0..self.nr_pages * PAGE).step_by(CHUNK) {
            self.file.read_at(buffer, at)?;
        }
        Ok(())
    }

    /// Reads each page once, and drops them all.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn round(&self) -> std::io::Result<()> {
        for page in 0..self.nr_pages {
            self.file.read_at(&mut [0], page * PAGE)?;
        }
        let all = NonZero::new(self.nr_pages * PAGE).ok_or(io::Errno::INVAL)?;
        Ok(fadvise(&self.file, 0, Some(all), Advice::DontNeed)?)
    }
}
