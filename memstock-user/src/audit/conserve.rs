//! Owns the law of conservation: a counter's usage is the pages owned by its cgroup and its descendants, plus the pages
//! charged but not in use for them; its `file` is the part of the former that is page cache, less what the CPUs have
//! yet to report. Reads maps only.
//!
//! It holds when nothing is in flight. So everything that changes when a page moves is read before and after the owner
//! map: if it is the same, nothing moved. On a busy host that never happens; then the reading that comes nearest to the
//! law counts, and is not exact.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use memstock_common::file::{FILE, FileWord};
use memstock_common::page::owner_in;
use memstock_common::{Chunk, Counter, MAX_DEPTH, NO_INDEX, Stock, StockWord, index_of};

use crate::engine::Engine;

/// Readings before it gives up waiting for a moment without motion.
const READINGS: u32 = 10;
/// Time between two of them.
const PAUSE: Duration = Duration::from_millis(5);

/// What one counter says and what it consists of, including descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Memory charged.
    pub usage: u64,
    /// Memory+swap charged; 0 unless that is counted.
    pub memsw: u64,
    /// Pages owned.
    pub owned: u64,
    /// Pages stocked, pending, or in uncharge batches.
    pub unused: u64,
    /// Pages in swap, part of memory+swap.
    pub swapped: u64,
    /// Page cache, as reported by the CPUs.
    pub file: i64,
    /// Change of page cache that is not yet reported.
    pub unreported: i64,
    /// Pages owned that are page cache.
    pub owned_file: u64,
}

impl Ledger {
    /// Pages charged that are neither owned nor unused; negative for owned or unused pages that are not charged.
    pub fn drift(&self) -> i64 {
        self.off(self.usage)
    }

    /// The same of memory+swap.
    pub fn memsw_drift(&self) -> i64 {
        self.off(self.memsw.wrapping_sub(self.swapped))
    }

    /// Page cache reported that does not exist; negative for page cache that was not reported.
    pub fn file_drift(&self) -> i64 {
        self.file.wrapping_add(self.unreported).wrapping_sub(self.owned_file.cast_signed())
    }

    /// All differences, including that of memory+swap if it is counted.
    pub fn drifts(&self, memsw: bool) -> impl Iterator<Item = i64> {
        let memsw = memsw.then(|| self.memsw_drift());
        [self.drift(), self.file_drift()].into_iter().chain(memsw)
    }

    fn off(&self, usage: u64) -> i64 {
        usage.wrapping_sub(self.owned).wrapping_sub(self.unused).cast_signed()
    }
}

/// The ledgers of all counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledgers {
    /// By counter.
    pub cgroups: BTreeMap<u32, Ledger>,
    /// Pages with an owner.
    pub owned: u64,
    /// Pages owned by, or stocked for, a counter that is not in use.
    pub ownerless: u64,
    /// Whether nothing moved meanwhile.
    pub is_exact: bool,
}

impl Ledgers {
    /// Reads the engine, several times if things move.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(engine: &Engine) -> Result<Self> {
        let owners = engine.owners()?;
        let memsw = engine.info().memsw == 1;
        let mut best: Option<Self> = None;
        let mut last = None;
        for reading in 0..READINGS {
            if reading > 0 {
                sleep(PAUSE);
            }
            let before = Moment::read(engine)?;
            let owned = count((0..owners.len()).map_while(|n| owners.get(n)));
            let after = Moment::read(engine)?;
            let ledgers = Self::new(&after, &owned);
            // Motion that the counters do not show, a page allocated for the one freed just before, can cause a drift
            // once, but hardly the same one twice.
            let twice = last.as_ref() == Some(&ledgers);
            if before == after && (ledgers.balance(memsw) || twice) {
                return Ok(Self { is_exact: true, ..ledgers });
            }
            last = (before == after).then(|| ledgers.clone());
            best = match best {
                Some(best) if best.distance() <= ledgers.distance() => Some(best),
                _ => Some(ledgers),
            };
        }
        Ok(best.unwrap_or_default())
    }

    fn new(moment: &Moment, owned: &BTreeMap<u32, Owned>) -> Self {
        let ledger = |row: &Row| {
            let Row { usage, memsw, file, .. } = *row;
            Ledger { usage, memsw, file: file.cast_signed(), ..Ledger::default() }
        };
        let cgroups = moment.rows.iter().map(|(&index, row)| (index, ledger(row))).collect();
        let mut ledgers = Self { cgroups, ..Self::default() };
        for (&index, &Owned { nr_pages, nr_file }) in owned {
            ledgers.owned += nr_pages;
            let enter = |ledger: &mut Ledger| {
                ledger.owned += nr_pages;
                ledger.owned_file += nr_file;
            };
            ledgers.spread(moment, index, enter, nr_pages);
        }
        for slot in &moment.stocks {
            for word in [slot.word, slot.uncharge_batch] {
                let nr_pages = word.charged().into();
                let enter = |ledger: &mut Ledger| ledger.unused += nr_pages;
                ledgers.spread(moment, index_of(word.owner()), enter, nr_pages);
            }
            let change = i64::from(slot.file.change());
            let enter = |ledger: &mut Ledger| ledger.unreported += change;
            ledgers.spread(moment, index_of(slot.file.owner()), enter, change.unsigned_abs());
        }
        for (&index, row) in &moment.rows {
            ledgers.spread(moment, index, |ledger| ledger.swapped += row.swapped, 0);
        }
        ledgers
    }

    /// Enters pages of a counter in its ledger and those of its ancestors.
    fn spread(
        &mut self,
        moment: &Moment,
        index: u32,
        mut enter: impl FnMut(&mut Ledger),
        nr_pages: u64,
    ) {
        if !moment.rows.contains_key(&index) {
            self.ownerless += nr_pages;
            return;
        }
        let mut at = index;
        // Bounded, in case a counter is its own ancestor: it may be changing while it is read.
        for _ in 0..MAX_DEPTH {
            let Some(row) = moment.rows.get(&at) else { return };
            if let Some(ledger) = self.cgroups.get_mut(&at) {
                enter(ledger);
            }
            at = row.parent;
        }
    }

    fn balance(&self, memsw: bool) -> bool {
        self.ownerless == 0
            && self.cgroups.values().all(|ledger| ledger.drifts(memsw).all(|drift| drift == 0))
    }

    /// The counter that is farthest from the law and by how many pages, of memory, page cache or memory+swap; none if
    /// all keep it.
    pub fn worst(&self, memsw: bool) -> Option<(u32, i64)> {
        let drifts = self
            .cgroups
            .iter()
            .flat_map(|(&index, ledger)| ledger.drifts(memsw).map(move |drift| (index, drift)));
        drifts.filter(|&(_, drift)| drift != 0).max_by_key(|(_, drift)| drift.unsigned_abs())
    }

    /// How far it is from the law.
    fn distance(&self) -> u64 {
        let drifts = self.cgroups.values().flat_map(|ledger| ledger.drifts(false));
        let drifts = drifts.map(i64::unsigned_abs);
        drifts.fold(self.ownerless, u64::saturating_add)
    }
}

/// Everything that changes when a page moves, except the owner map.
#[derive(Debug, PartialEq, Eq)]
struct Moment {
    rows: BTreeMap<u32, Row>,
    stocks: Vec<Moving>,
}

/// The part of a counter that is needed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    id: u64,
    parent: u32,
    usage: u64,
    memsw: u64,
    swapped: u64,
    file: u64,
}

impl Moment {
    fn read(engine: &Engine) -> Result<Self> {
        let row = |(index, counter): (u32, &Counter<u64>)| {
            let Counter { id, parent, memory, memsw, swapped, file, .. } = *counter;
            let parent = index_of(parent as u32);
            (index, Row { id, parent, usage: memory.usage, memsw: memsw.usage, swapped, file })
        };
        let rows = engine.counters().iter().map(row).collect();
        let mut stocks = Vec::new();
        for slot in 0..engine.info().slots {
            stocks.extend(engine.stocks(slot)?.iter().map(|(_, stock)| Moving::of(stock)));
        }
        Ok(Self { rows, stocks })
    }
}

/// What a slot holds, and counts that only grow with each page that passes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moving {
    word: StockWord,
    uncharge_batch: StockWord,
    file: FileWord,
    passed: [u64; 7],
}

impl Moving {
    fn of(stock: &Stock<u64>) -> Self {
        let Stock { faults, from_stock, missed, refills, drains, charges, uncharges, .. } = *stock;
        Self {
            word: StockWord(stock.word),
            uncharge_batch: StockWord(stock.uncharge_batch),
            file: FileWord(stock.file),
            passed: [faults, from_stock, missed, refills, drains, charges, uncharges],
        }
    }
}

/// Pages with an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owned {
    nr_pages: u64,
    /// Those that are page cache.
    nr_file: u64,
}

/// How many pages each counter owns.
fn count(chunks: impl Iterator<Item = Chunk<u32>>) -> BTreeMap<u32, Owned> {
    let mut owned = BTreeMap::<u32, Owned>::new();
    for chunk in chunks {
        // Most memory has no owner, and the compiler makes this much faster than checking each entry.
        if chunk.owners.iter().fold(0, |all, owner| all | owner) == 0 {
            continue;
        }
        for run in chunk.owners.chunk_by(|a, b| a == b) {
            let index = index_of(owner_in(run[0]));
            if index != NO_INDEX {
                let owned = owned.entry(index).or_default();
                let nr_pages = run.len() as u64;
                owned.nr_pages += nr_pages;
                owned.nr_file += if run[0] & FILE == 0 { 0 } else { nr_pages };
            }
        }
    }
    owned
}

#[cfg(test)]
mod tests;
