//! The inactive and the active list, as `mm/swap.c`, `mm/vmscan.c` and `mm/workingset.c` keep them for unmapped page
//! cache. A page enters the inactive list and is activated at its second use there. It is activated at once if it comes
//! back after fewer evictions and activations than there are active pages.

use super::super::uses::Use;
use super::Policy;
use super::list::Lists;

const INACTIVE: usize = 0;
const ACTIVE: usize = 1;
/// Pages evicted in one pass of reclaim (`SWAP_CLUSTER_MAX`).
const PASS: u64 = 32;
/// 1 GiB in pages of 4 KiB, the unit of this file; for the ratio of the lists.
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
    /// Whether a page was activated as it came back since the last pass of reclaim began (`WORKINGSET_ACTIVATE`).
    has_refaulted: bool,
    /// Pages that this pass has yet to evict.
    left: u64,
    /// Whether this pass deactivates pages (`may_deactivate`), and how many are due.
    may_deactivate: bool,
    due: f64,
}

impl Classic {
    /// Starts with empty lists, for `pages` pages.
    pub fn new(pages: usize) -> Self {
        Self {
            lists: Lists::new(pages),
            pages: vec![Page::default(); pages],
            age: 0,
            has_refaulted: false,
            left: 0,
            may_deactivate: false,
            due: 0.0,
        }
    }

    fn activate(&mut self, page: u32, weight: u32) {
        self.lists.push(ACTIVE, page, weight);
        self.pages[page as usize].is_referenced = false;
        self.age += u64::from(weight);
    }

    /// As in `inactive_is_low`: up to 1 GiB, inactive should be as large as active; above that, smaller.
    fn is_inactive_low(&self) -> bool {
        let (inactive, active) = (self.lists.weight(INACTIVE), self.lists.weight(ACTIVE));
        let gib = inactive.saturating_add(active) / GIB;
        let ratio = if gib > 0 { (10 * gib).isqrt() } else { 1 };
        inactive.saturating_mul(ratio) < active
    }

    /// Both lists are scanned in proportion to their sizes (`get_scan_count`): the ratio of deactivated to scanned
    /// pages is that of the active list to the inactive one.
    fn deactivate(&mut self, scanned: u64) {
        let (inactive, active) = (self.lists.weight(INACTIVE), self.lists.weight(ACTIVE));
        self.due += scanned as f64 * active as f64 / inactive.max(1) as f64;
        while let Some(page) = self.lists.oldest(ACTIVE) {
            let weight = self.lists.weight_of(page);
            if self.due < f64::from(weight) {
                return;
            }
            self.due -= f64::from(weight);
            self.lists.push(INACTIVE, page, weight);
        }
        self.due = 0.0;
    }

    fn begin_pass(&mut self) {
        self.may_deactivate = self.has_refaulted || self.is_inactive_low();
        self.has_refaulted = false;
        self.left = PASS;
        self.due = 0.0;
    }
}

impl Policy for Classic {
    fn enter(&mut self, used: Use, is_used: bool) {
        self.pages[used.page as usize] = Page { is_referenced: is_used, evicted: None };
        self.lists.push(INACTIVE, used.page, used.weight);
    }

    fn has(&self, page: u32) -> bool {
        self.lists.list_of(page).is_some()
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
        // As in `workingset_test_recent` without swap.
        if evicted.is_some_and(|evicted| self.age - evicted <= self.lists.weight(ACTIVE)) {
            self.activate(used.page, used.weight);
            self.has_refaulted = true;
        }
    }

    fn leave(&mut self, page: u32) {
        self.lists.remove(page);
        self.pages[page as usize] = Page::default();
    }

    fn oldest(&mut self) -> Option<u32> {
        if self.left == 0 {
            self.begin_pass();
        }
        let oldest = |lists: &Lists<2>| lists.oldest(INACTIVE).or(lists.oldest(ACTIVE));
        let page = oldest(&self.lists)?;
        if self.may_deactivate {
            self.deactivate(self.lists.weight_of(page).into());
        }
        oldest(&self.lists)
    }

    fn evict(&mut self, page: u32) {
        let weight = u64::from(self.lists.weight_of(page));
        self.left = self.left.saturating_sub(weight);
        self.age += weight;
        self.pages[page as usize] = Page { is_referenced: false, evicted: Some(self.age) };
        self.lists.remove(page);
    }

    fn keep(&mut self, page: u32) {
        self.activate(page, self.lists.weight_of(page));
    }

    fn rotate(&mut self, page: u32) {
        self.lists.push_oldest(INACTIVE, page);
    }

    fn size(&self) -> u64 {
        self.lists.size()
    }
}
