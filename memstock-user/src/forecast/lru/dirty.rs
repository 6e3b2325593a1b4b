//! The dirty pages of a simulated cache, and when they are written, as `shrink_folio_list` and `shrink_inactive_list`
//! in `mm/vmscan.c` have it: reclaim passes over dirty pages as long as it finds others, and has all of them written
//! once a batch is of dirty pages only.

use super::super::uses::Use;

/// Pages that reclaim looks at in one batch (`SWAP_CLUSTER_MAX`). Pages of the sample: two of its blocks are two runs of
/// neighbours, as in the whole, and each stands for others like it.
const BATCH: u32 = 32;

/// What reclaim finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// A page to evict.
    Clean,
    /// A dirty page, which is kept.
    Dirty,
    /// A dirty page, the last of a whole batch of them: all dirty pages are to be written.
    OnlyDirty,
}

/// The dirty pages.
#[derive(Debug)]
pub struct Dirty {
    /// How many pages each stands for; 0 if it is clean.
    weights: Vec<u32>,
    /// Those that became dirty since all were written.
    pages: Vec<u32>,
    /// Those that reclaim has kept since, each once, and which of them are still in the cache.
    kept: Vec<u32>,
    is_kept: Vec<bool>,
    /// How many dirty pages reclaim has met without a clean one in between.
    in_a_row: u32,
}

impl Dirty {
    /// None of `pages` pages is dirty.
    pub fn new(pages: usize) -> Self {
        Self {
            weights: vec![0; pages],
            pages: Vec::new(),
            kept: Vec::new(),
            is_kept: vec![false; pages],
            in_a_row: 0,
        }
    }

    /// A page becomes dirty.
    pub fn add(&mut self, Use { page, weight }: Use) {
        if std::mem::replace(&mut self.weights[page as usize], weight) == 0 {
            self.pages.push(page);
        }
    }

    /// Reclaim looks at a page.
    pub fn meets(&mut self, page: u32) -> Met {
        if self.weights[page as usize] == 0 {
            self.in_a_row = 0;
            return Met::Clean;
        }
        if !std::mem::replace(&mut self.is_kept[page as usize], true) {
            self.kept.push(page);
        }
        self.in_a_row += 1;
        if self.in_a_row < BATCH { Met::Dirty } else { Met::OnlyDirty }
    }

    /// A page leaves the cache.
    pub fn leaves(&mut self, page: u32) {
        self.clean(page);
        self.is_kept[page as usize] = false;
    }

    fn clean(&mut self, page: u32) -> u64 {
        u64::from(std::mem::take(&mut self.weights[page as usize]))
    }

    /// Cleans all (`wakeup_flusher_threads`), and returns how many there were.
    pub fn write(&mut self) -> u64 {
        self.in_a_row = 0;
        std::mem::take(&mut self.pages).into_iter().map(|page| self.clean(page)).sum()
    }

    /// The pages that reclaim has kept, and that are clean by now.
    pub fn take_kept(&mut self) -> Vec<u32> {
        let mut kept = std::mem::take(&mut self.kept);
        kept.retain(|&page| std::mem::take(&mut self.is_kept[page as usize]));
        kept
    }
}
