//! Owns the law of conservation: for each counter, usage is the pages owned by its cgroup and those below,
//! plus the pages charged and not in use for them. Reads maps only.
//!
//! It holds when nothing is in flight. So everything that moves when a page does is read before and after
//! the owner map: if it was the same, nothing moved. On a busy host that never happens; then the one of
//! several readings counts that comes nearest to the law, and is not exact.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use memstock_common::page::owner_in;
use memstock_common::{Chunk, Counter, MAX_DEPTH, NO_INDEX, Stock, StockWord, index_of};

use crate::engine::Engine;

/// Readings before it is given up that nothing moves.
const READINGS: u32 = 10;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(5);

/// What one counter says and what it is made of, with its descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Book {
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
}

impl Book {
    /// Pages charged that are nowhere; negative for pages somewhere that are not charged.
    pub fn drift(&self) -> i64 {
        self.off(self.usage)
    }

    /// The same of memory+swap.
    pub fn memsw_drift(&self) -> i64 {
        self.off(self.memsw.wrapping_sub(self.swapped))
    }

    fn off(&self, usage: u64) -> i64 {
        usage.wrapping_sub(self.owned).wrapping_sub(self.unused).cast_signed()
    }
}

/// The books of all counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// By counter.
    pub cgroups: BTreeMap<u32, Book>,
    /// Pages with an owner.
    pub owned: u64,
    /// Pages owned by, or stocked for, a counter that is not in use.
    pub ownerless: u64,
    /// Whether nothing moved meanwhile.
    pub is_exact: bool,
}

impl Books {
    /// Reads the engine, several times if things move.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(engine: &Engine) -> Result<Self> {
        Self::read_while(engine, || true)
    }

    /// The same, with no further reading once `goes_on` says so; what was read by then is not exact.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read_while(engine: &Engine, goes_on: impl Fn() -> bool) -> Result<Self> {
        let owners = engine.owners()?;
        let memsw = engine.info().memsw == 1;
        let mut best: Option<Self> = None;
        let mut last = None;
        for reading in 0..READINGS {
            if reading > 0 {
                sleep(PAUSE);
            }
            if !goes_on() {
                break;
            }
            let before = Moment::read(engine)?;
            let owned = count((0..owners.len()).map_while(|n| owners.get(n)));
            let after = Moment::read(engine)?;
            let books = Self::new(&after, &owned);
            // What shows no motion in the counters, a page allocated for the one freed just before, can
            // make a drift once, but hardly the same one twice.
            let twice = last.as_ref() == Some(&books);
            if before == after && (books.balance(memsw) || twice) {
                return Ok(Self { is_exact: true, ..books });
            }
            last = (before == after).then(|| books.clone());
            best = match best {
                Some(best) if best.distance() <= books.distance() => Some(best),
                _ => Some(books),
            };
        }
        Ok(best.unwrap_or_default())
    }

    fn new(moment: &Moment, owned: &BTreeMap<u32, u64>) -> Self {
        let book = |row: &Row| Book { usage: row.usage, memsw: row.memsw, ..Book::default() };
        let cgroups = moment.rows.iter().map(|(&index, row)| (index, book(row))).collect();
        let mut books = Self { cgroups, ..Self::default() };
        for (&index, &nr_pages) in owned {
            books.owned += nr_pages;
            books.spread(moment, index, |book| book.owned += nr_pages, nr_pages);
        }
        for (&index, &nr_pages) in &moment.unused() {
            books.spread(moment, index, |book| book.unused += nr_pages, nr_pages);
        }
        for (&index, row) in &moment.rows {
            books.spread(moment, index, |book| book.swapped += row.swapped, 0);
        }
        books
    }

    /// Enters pages of a counter with it and with its ancestors.
    fn spread(
        &mut self,
        moment: &Moment,
        index: u32,
        mut enter: impl FnMut(&mut Book),
        nr_pages: u64,
    ) {
        if !moment.rows.contains_key(&index) {
            self.ownerless += nr_pages;
            return;
        }
        let mut at = index;
        // A bound, should a counter be its own ancestor: what is read may be changing.
        for _ in 0..MAX_DEPTH {
            let Some(row) = moment.rows.get(&at) else { return };
            if let Some(book) = self.cgroups.get_mut(&at) {
                enter(book);
            }
            at = row.parent;
        }
    }

    fn balance(&self, memsw: bool) -> bool {
        self.ownerless == 0
            && self
                .cgroups
                .values()
                .all(|book| book.drift() == 0 && (!memsw || book.memsw_drift() == 0))
    }

    /// The counter that is farthest from the law and by how many pages, of memory or of memory+swap; none if
    /// all keep it.
    pub fn worst(&self, memsw: bool) -> Option<(u32, i64)> {
        let drifts = self.cgroups.iter().flat_map(|(&index, book)| {
            let memsw = memsw.then(|| book.memsw_drift());
            std::iter::once(book.drift()).chain(memsw).map(move |drift| (index, drift))
        });
        drifts.filter(|&(_, drift)| drift != 0).max_by_key(|(_, drift)| drift.unsigned_abs())
    }

    /// How far it is from the law.
    fn distance(&self) -> u64 {
        let drifts = self.cgroups.values().map(|book| book.drift().unsigned_abs());
        drifts.fold(self.ownerless, u64::saturating_add)
    }
}

/// All that moves when a page does, but the owner map.
#[derive(Debug, PartialEq, Eq)]
struct Moment {
    rows: BTreeMap<u32, Row>,
    stocks: Vec<[u64; 8]>,
}

/// What of a counter is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    id: u64,
    parent: u32,
    usage: u64,
    memsw: u64,
    swapped: u64,
}

impl Moment {
    fn read(engine: &Engine) -> Result<Self> {
        let row = |(index, counter): (u32, Counter<u64>)| {
            let Counter { id, parent, memory, memsw, swapped, .. } = counter;
            let parent = index_of(parent as u32);
            (index, Row { id, parent, usage: memory.usage, memsw: memsw.usage, swapped })
        };
        let rows = engine.counters().into_iter().map(row).collect();
        let mut stocks = Vec::new();
        for slot in 0..engine.info().slots {
            stocks.extend(engine.stocks(slot)?.iter().map(|(_, stock)| moving(stock)));
        }
        Ok(Self { rows, stocks })
    }

    /// Pages that are charged and not in use, by counter.
    fn unused(&self) -> BTreeMap<u32, u64> {
        let mut unused = BTreeMap::new();
        for &[word, batch, ..] in &self.stocks {
            for word in [word, batch].map(StockWord).into_iter().filter(|word| word.charged() > 0) {
                *unused.entry(index_of(word.owner())).or_default() += u64::from(word.charged());
            }
        }
        unused
    }
}

/// What a slot has, and what only goes up with each page that passes through it.
fn moving(stock: &Stock<u64>) -> [u64; 8] {
    let Stock { word, uncharge_batch, hits, misses, refills, drains, charges, uncharges, .. } =
        *stock;
    [word, uncharge_batch, hits, misses, refills, drains, charges, uncharges]
}

/// How many pages each counter owns.
fn count(chunks: impl Iterator<Item = Chunk<u32>>) -> BTreeMap<u32, u64> {
    let mut owned = BTreeMap::new();
    for chunk in chunks {
        // Most memory is nobody's, and the compiler makes this much faster than a look at each.
        if chunk.owners.iter().fold(0, |all, owner| all | owner) == 0 {
            continue;
        }
        for run in chunk.owners.chunk_by(|a, b| a == b) {
            let index = index_of(owner_in(run[0]));
            if index != NO_INDEX {
                *owned.entry(index).or_default() += run.len() as u64;
            }
        }
    }
    owned
}

#[cfg(test)]
mod tests;
