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
    /// Whether a page came back as an active one since the last pass of reclaim began (`WORKINGSET_ACTIVATE`).
    has_refaulted: bool,
    /// How much this pass has yet to evict.
    left: u64,
    /// Whether this pass deactivates pages (`may_deactivate`), and how much is due.
    may_deactivate: bool,
    due: f64,
}

impl Classic {
    /// For so many pages.
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

    /// As in `inactive_is_low`: up to 1 GiB as much as is active, and less above.
    fn is_inactive_low(&self) -> bool {
        let (inactive, active) = (self.lists.weight(INACTIVE), self.lists.weight(ACTIVE));
        let gib = inactive.saturating_add(active) / GIB;
        let ratio = if gib > 0 { (10 * gib).isqrt() } else { 1 };
        inactive.saturating_mul(ratio) < active
    }

    /// Both lists are scanned in proportion to their sizes (`get_scan_count`): for so much that is evicted, as much is
    /// deactivated as the active list is larger than the inactive one.
    fn deactivate(&mut self, evicted: u64) {
        let (inactive, active) = (self.lists.weight(INACTIVE), self.lists.weight(ACTIVE));
        self.due += evicted as f64 * active as f64 / inactive.max(1) as f64;
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
            self.has_refaulted = true;
        }
    }

    fn leave(&mut self, page: u32) {
        self.lists.remove(page);
        self.pages[page as usize] = Page::default();
    }

    fn evict(&mut self) -> bool {
        if self.left == 0 {
            self.begin_pass();
        }
        let oldest = |lists: &Lists<2>| lists.oldest(INACTIVE).or(lists.oldest(ACTIVE));
        let Some(page) = oldest(&self.lists) else { return false };
        let weight = u64::from(self.lists.weight_of(page));
        if self.may_deactivate {
            self.deactivate(weight);
        }
        let page = oldest(&self.lists).unwrap_or(page);
        let weight = u64::from(self.lists.weight_of(page));
        self.left = self.left.saturating_sub(weight);
        self.age += weight;
        self.pages[page as usize] = Page { is_referenced: false, evicted: Some(self.age) };
        self.lists.remove(page);
        true
    }

    fn size(&self) -> u64 {
        self.lists.size()
    }
}
