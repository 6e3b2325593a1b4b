//! The two lists, inactive and active, as `mm/swap.c`, `mm/vmscan.c` and `mm/workingset.c` have them for page cache that is
//! not mapped: a page enters the inactive list, is activated when it is used a second time there, and is activated at
//! once when it comes back after fewer evictions and activations than there are active pages.

use super::super::uses::Use;
use super::Policy;
use super::list::Lists;

const INACTIVE: usize = 0;
const ACTIVE: usize = 1;
/// Pages that one pass of reclaim is for (`SWAP_CLUSTER_MAX`).
const PASS: u64 = 32;
/// Pages of 1 GiB, for the ratio of the lists; of 4 KiB, as all else here.
const GIB: u64 = 1 << 18;

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// `PG_referenced`.
    is_referenced: bool,
    /// When it was evicted, in evictions and activations (`nonresident_age`).
    evicted: Option<u64>,
}

/// Both lists.
pub struct Classic {
    lists: Lists<2>,
    pages: Vec<Page>,
    age: u64,
    /// How much may still be deactivated because pages came back that had been in use (`WORKINGSET_ACTIVATE`).
    refaulted: u64,
}

impl Classic {
    /// For so many pages.
    pub fn new(pages: usize) -> Self {
        Self { lists: Lists::new(pages), pages: vec![Page::default(); pages], age: 0, refaulted: 0 }
    }

    fn activate(&mut self, page: u32, weight: u32) {
        self.lists.push(ACTIVE, page, weight);
        self.pages[page as usize].is_referenced = false;
        self.age += u64::from(weight);
    }

    /// As in `inactive_is_low`: up to 1 GiB as much as is active, and less above.
    fn is_inactive_low(&self) -> bool {
        let (inactive, active) = (self.lists.weight(INACTIVE), self.lists.weight(ACTIVE));
        let gib = (inactive + active) / GIB;
        let ratio = if gib > 0 { (10 * gib).isqrt() } else { 1 };
        inactive * ratio < active
    }

    fn deactivate(&mut self) {
        if let Some(page) = self.lists.oldest(ACTIVE) {
            self.lists.push(INACTIVE, page, self.lists.weight_of(page));
        }
    }
}

impl Policy for Classic {
    fn enter(&mut self, used: Use, is_used: bool) {
        self.pages[used.page as usize] = Page { is_referenced: is_used, evicted: None };
        self.lists.push(INACTIVE, used.page, used.weight);
    }

    fn touch(&mut self, page: u32) -> bool {
        let Some(list) = self.lists.list_of(page) else { return false };
        // As in `folio_mark_accessed`.
        match (list, self.pages[page as usize].is_referenced) {
            (INACTIVE, true) => self.activate(page, self.lists.weight_of(page)),
            _ => self.pages[page as usize].is_referenced = true,
        }
        true
    }

    fn refault(&mut self, used: Use) {
        let evicted = self.pages[used.page as usize].evicted;
        self.enter(used, true);
        // As in `workingset_test_recent`, where there is no swap.
        if evicted.is_some_and(|evicted| self.age - evicted <= self.lists.weight(ACTIVE)) {
            self.activate(used.page, used.weight);
            self.refaulted = PASS.max(u64::from(used.weight));
        }
    }

    fn leave(&mut self, page: u32) {
        self.lists.remove(page);
        self.pages[page as usize] = Page::default();
    }

    fn evict(&mut self) -> bool {
        if self.refaulted > 0 || self.is_inactive_low() {
            self.deactivate();
        }
        let Some(page) = self.lists.oldest(INACTIVE).or(self.lists.oldest(ACTIVE)) else {
            return false;
        };
        let weight = u64::from(self.lists.weight_of(page));
        self.refaulted = self.refaulted.saturating_sub(weight);
        self.age += weight;
        self.pages[page as usize] = Page { is_referenced: false, evicted: Some(self.age) };
        self.lists.remove(page);
        true
    }

    fn size(&self) -> u64 {
        self.lists.size()
    }
}
