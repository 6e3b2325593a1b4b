//! Which files pages are of: asked of the kernel half, a window at a time.

use std::sync::Mutex;

use anyhow::Result;
use memstock_common::adopt::{WINDOW_PAGES, Window};
use memstock_common::file::FilePage;

use super::Engine;
use super::mapped::Mapped;
use super::pins::Pins;

/// The map by which the kernel half answers. Whoever asks holds the lock until it has read the answer.
pub(super) struct FilePages(Mutex<Mapped<FilePage<u64>>>);

impl FilePages {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self(Mutex::new(Mapped::open(pins, "FILE_PAGES")?)))
    }
}

impl Engine {
    /// Which files the pages of `window` are of, by page frame number modulo [`WINDOW_PAGES`]; none while another
    /// thread asks, which is not waited for: it may be stopped.
    ///
    /// # Errors
    /// A page frame is outside the page-owner map.
    pub fn file_pages(&self, window: Window) -> Result<Option<Vec<FilePage<u64>>>> {
        let Ok(pages) = self.file_pages.0.try_lock() else { return Ok(None) };
        self.control.file_pages(window)?;
        Ok(Some((0..WINDOW_PAGES as usize).filter_map(|n| pages.get(n)).collect()))
    }
}
