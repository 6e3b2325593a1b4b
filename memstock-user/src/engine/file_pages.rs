//! Which files pages belong to: asks the kernel half, one window at a time.

use std::sync::Mutex;

use anyhow::Result;
use memstock_common::adopt::{WINDOW_PAGES, Window};
use memstock_common::file::FilePage;

use super::Engine;
use super::mapped::Mapped;
use super::pins::Pins;

/// The map in which the kernel half answers. The lock is held until the answer has been read.
pub(super) struct FilePages(Mutex<Mapped<FilePage<u64>>>);

impl FilePages {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self(Mutex::new(Mapped::open(pins, "FILE_PAGES")?)))
    }
}

impl Engine {
    /// The files of the pages of `window`, by page frame number modulo [`WINDOW_PAGES`]. Returns none while another
    /// thread is asking, instead of waiting for it: it may be stopped.
    ///
    /// # Errors
    /// A page frame is outside the page-owner map.
    pub fn file_pages(&self, window: Window) -> Result<Option<Vec<FilePage<u64>>>> {
        let Ok(pages) = self.file_pages.0.try_lock() else { return Ok(None) };
        self.control.file_pages(window)?;
        Ok(Some((0..WINDOW_PAGES as usize).filter_map(|n| pages.get(n)).collect()))
    }
}
