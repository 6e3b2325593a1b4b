//! Adds folios to the page cache.

use memstock_common::{NOBODY, file};

use super::{NewWord, World};

/// A folio that is added to the page cache.
#[derive(Clone, Copy, Debug)]
pub struct Added {
    pub nr_pages: u32,
    pub is_evictable: bool,
    pub is_charged: bool,
    /// Owner number of the task that adds it.
    pub owner: u32,
}

impl Default for Added {
    fn default() -> Self {
        Self { nr_pages: 1, is_evictable: true, is_charged: true, owner: NOBODY }
    }
}

impl file::Folio for Added {
    fn extent(&self) -> Option<(u32, bool)> {
        Some((self.nr_pages, self.is_evictable))
    }
    fn is_charged(&self) -> bool {
        self.is_charged
    }
    fn owner(&self) -> u32 {
        self.owner
    }
}

impl<W: NewWord> World<W> {
    /// What the page cache program does when an untracked task adds a folio of `nr_pages` pages.
    pub fn cache(&self, cpu: u32, pfn: u64, nr_pages: u32) {
        self.cache_folio(cpu, pfn, &Added { nr_pages, ..Added::default() });
    }

    /// The same for any folio.
    pub fn cache_folio(&self, cpu: u32, pfn: u64, folio: &Added) {
        file::added(&self.cpu(cpu), pfn, folio);
    }
}
