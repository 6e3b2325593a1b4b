//! The generations of MGLRU, as `mm/vmscan.c` and `mm/workingset.c` keep them for unmapped page cache. A page enters
//! the oldest generation; its uses do not move it but are counted, and the count decides its tier. Pages are evicted
//! from the oldest generation. A tier that comes back more often than the first, whose pages were used once, is moved
//! to the next generation instead, and so is a page that was used as often as can be counted.

use super::super::uses::Use;
use super::Policy;
use super::list::Lists;

/// `MAX_NR_GENS`.
const GENERATIONS: usize = 4;
/// `MIN_NR_GENS`: with fewer, a new generation is begun.
const FEWEST: u64 = 2;
/// `MAX_NR_TIERS`.
const TIERS: usize = 4;
/// Uses are counted up to this: by `PG_referenced`, two bits and `PG_workingset` (`lru_gen_inc_refs`). A page used so
/// often is kept whatever its tier (`sort_folio`).
const MOST_USES: u8 = 5;
/// With fewer refaults of a tier, nothing is concluded from them (`MIN_LRU_BATCH`).
const FEWEST_COMEBACKS: u64 = 64;
/// A tier is protected if its pages refault this many times as often as those of the first (`get_tier_idx`).
const GAIN: u128 = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    uses: u8,
    /// The oldest generation and the page's tier when it was evicted.
    evicted: Option<(u64, usize)>,
}

/// What became of a tier's pages (`struct ctrl_pos`).
#[derive(Clone, Copy, Debug, Default)]
struct Tier {
    refaulted: u64,
    /// Evicted or protected.
    left: u64,
}

/// All generations.
pub struct Generations {
    lists: Lists<GENERATIONS>,
    pages: Vec<Page>,
    oldest: u64,
    youngest: u64,
    tiers: [Tier; TIERS],
}

impl Generations {
    /// Starts with empty generations, for `pages` pages.
    pub fn new(pages: usize) -> Self {
        Self {
            lists: Lists::new(pages),
            pages: vec![Page::default(); pages],
            oldest: 0,
            youngest: FEWEST - 1,
            tiers: [Tier::default(); TIERS],
        }
    }

    fn put(&mut self, generation: u64, page: u32, weight: u32) {
        self.lists.push(place(generation), page, weight);
    }

    /// The last tier whose pages are evicted (`get_tier_idx`): those above refault at twice the rate of the first.
    fn last_evicted(&self) -> usize {
        let first = self.tiers[0];
        let is_evicted = |&tier: &usize| {
            let Tier { refaulted, left } = self.tiers[tier];
            let wide = |a: u64, b: u64| u128::from(a) * u128::from(b);
            // As in `positive_ctrl_err`.
            refaulted < FEWEST_COMEBACKS
                || wide(refaulted, first.left.saturating_add(FEWEST_COMEBACKS))
                    <= GAIN * wide(first.refaulted.saturating_add(1), left)
        };
        (1..TIERS).take_while(is_evicted).last().unwrap_or(0)
    }

    /// Moves on from an empty oldest generation, and begins a new one if too few are left.
    fn age(&mut self) {
        while self.lists.weight(place(self.oldest)) == 0 && self.lists.size() > 0 {
            if self.youngest - self.oldest < FEWEST {
                self.youngest += 1;
            }
            self.oldest += 1;
            // What was learnt of the tiers counts half from now on (`reset_ctrl_pos`).
            for tier in &mut self.tiers {
                tier.refaulted /= 2;
                tier.left /= 2;
            }
        }
    }
}

fn place(generation: u64) -> usize {
    usize::try_from(generation % GENERATIONS as u64).unwrap_or(0)
}

fn tier_of(uses: u8) -> usize {
    // A page used n times through a descriptor is in tier order_base_2(n).
    uses.max(1).next_power_of_two().ilog2() as usize
}

impl Policy for Generations {
    fn enter(&mut self, used: Use, is_used: bool) {
        self.pages[used.page as usize] = Page { uses: u8::from(is_used), evicted: None };
        self.put(self.oldest, used.page, used.weight);
    }

    fn has(&self, page: u32) -> bool {
        self.lists.list_of(page).is_some()
    }

    fn touch(&mut self, page: u32) -> bool {
        let is_here = self.lists.list_of(page).is_some();
        if is_here {
            let uses = &mut self.pages[page as usize].uses;
            *uses = (*uses + 1).min(MOST_USES);
        }
        is_here
    }

    fn refault(&mut self, used: Use) {
        let evicted = self.pages[used.page as usize].evicted;
        self.enter(used, true);
        // As in `lru_gen_refault`: a page evicted too long ago teaches nothing.
        if let Some((oldest, tier)) = evicted
            && self.oldest - oldest < FEWEST
        {
            self.tiers[tier].refaulted += u64::from(used.weight);
            if tier > 0 {
                self.pages[used.page as usize].uses = MOST_USES;
                self.put(self.youngest, used.page, used.weight);
            }
        }
    }

    fn leave(&mut self, page: u32) {
        self.lists.remove(page);
        self.pages[page as usize] = Page::default();
    }

    fn oldest(&mut self) -> Option<u32> {
        let last = self.last_evicted();
        loop {
            self.age();
            let page = self.lists.oldest(place(self.oldest))?;
            let uses = self.pages[page as usize].uses;
            let tier = tier_of(uses);
            if tier <= last && uses < MOST_USES {
                return Some(page);
            }
            let weight = self.lists.weight_of(page);
            self.tiers[tier].left += u64::from(weight);
            self.pages[page as usize].uses = 0;
            self.put(self.oldest + 1, page, weight);
        }
    }

    fn evict(&mut self, page: u32) {
        let tier = tier_of(self.pages[page as usize].uses);
        self.tiers[tier].left += u64::from(self.lists.weight_of(page));
        self.lists.remove(page);
        self.pages[page as usize] = Page { uses: 0, evicted: Some((self.oldest, tier)) };
    }

    fn keep(&mut self, page: u32) {
        self.put(self.oldest + 1, page, self.lists.weight_of(page));
    }

    fn rotate(&mut self, page: u32) {
        self.lists.push_oldest(place(self.oldest), page);
    }

    fn size(&self) -> u64 {
        self.lists.size()
    }
}
