//! How much of a cgroup's usage is needed: the part that the kernel could not reclaim without swap. Reads no maps; the
//! callers do.
//!
//! At a limit the kernel kills for what it cannot reclaim, not for usage: clean page cache goes first. So every limit
//! is compared with `usage - file - stocked`. Until the CPUs are drained, part of the figures is still on its way to
//! the shared counters ([`InFlight`]).

use std::collections::BTreeMap;

use memstock_common::counter::needed;
use memstock_common::file::FileWord;
use memstock_common::{Counter, MAX_DEPTH, Stock, StockWord, index_of};

/// What the CPUs hold for a counter and its descendants that is not in its own figures yet. In pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Charged but not in use: in stocks, pending, in uncharge batches.
    pub stocked: u64,
    /// Change of page cache that is not yet reported.
    pub file: i64,
}

/// What a counter's usage consists of. In pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Page cache that could be reclaimed.
    pub file: u64,
    /// The rest, which could not.
    pub needed: u64,
}

/// What the slots `stocks` have in flight, by counter, including its descendants. `parent` gives the index of the parent
/// of a counter, if that is in use.
pub fn in_flight<'a>(
    parent: impl Fn(u32) -> Option<u32>,
    stocks: impl IntoIterator<Item = &'a Stock<u64>>,
) -> BTreeMap<u32, InFlight> {
    let mut all = BTreeMap::<u32, InFlight>::new();
    for stock in stocks {
        for word in [stock.word, stock.uncharge_batch].map(StockWord) {
            let add = |flight: &mut InFlight| flight.stocked += u64::from(word.charged());
            spread(&parent, index_of(word.owner()), &mut all, add);
        }
        let word = FileWord(stock.file);
        let add = |flight: &mut InFlight| flight.file += i64::from(word.change());
        spread(&parent, index_of(word.owner()), &mut all, add);
    }
    all
}

/// Adds to a counter and to all its ancestors.
fn spread(
    parent: impl Fn(u32) -> Option<u32>,
    index: u32,
    all: &mut BTreeMap<u32, InFlight>,
    add: impl Fn(&mut InFlight),
) {
    lineage(parent, index).for_each(|at| add(all.entry(at).or_default()));
}

/// A counter and its ancestors, as far as they exist: at most [`MAX_DEPTH`], in case one is its own ancestor, since the
/// counters may be changing while they are read.
pub fn lineage(parent: impl Fn(u32) -> Option<u32>, index: u32) -> impl Iterator<Item = u32> {
    let mut next = index;
    let up = move || {
        let at = next;
        next = parent(at)?;
        Some(at)
    };
    std::iter::from_fn(up).take(MAX_DEPTH as usize)
}

impl Need {
    /// The need of memory.
    pub fn of(counter: &Counter<u64>, flight: InFlight) -> Self {
        Self::of_usage(counter.memory.usage, counter.file, flight)
    }

    /// The need of memory and swap together: swapped pages are needed.
    pub fn of_memsw(counter: &Counter<u64>, flight: InFlight) -> Self {
        Self::of_usage(counter.memsw.usage, counter.file, flight)
    }

    fn of_usage(usage: u64, file: u64, flight: InFlight) -> Self {
        let used = usage.saturating_sub(flight.stocked);
        let file = file.cast_signed().saturating_add(flight.file).cast_unsigned();
        let needed = needed(used, file);
        // While pages come and go, the figures read may not fit together.
        Self { file: used - needed, needed }
    }
}

/// Pages that are stocked, pending or in an uncharge batch, by counter index.
pub fn unused<'a>(stocks: impl Iterator<Item = &'a Stock<u64>>) -> BTreeMap<u32, u64> {
    let mut unused = BTreeMap::new();
    for word in stocks.flat_map(|stock| [stock.word, stock.uncharge_batch]).map(StockWord) {
        *unused.entry(index_of(word.owner())).or_default() += u64::from(word.charged());
    }
    unused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Counters;
    use memstock_common::{NO_INDEX, PageCounter, owner_of};

    fn counter(parent: u32, usage: u64, file: u64) -> Counter<u64> {
        let memory = PageCounter { usage, ..PageCounter::default() };
        Counter { id: 1, memory, file, parent: owner_of(parent).into(), ..Counter::default() }
    }

    #[test]
    fn what_is_in_flight_below_counts_above() {
        let all = [counter(NO_INDEX, 100, 30), counter(0, 60, 30)];
        let counters: Counters = (0..).zip(all).collect();
        let stock = Stock {
            word: StockWord::new(owner_of(1), 1, 9).0,
            uncharge_batch: StockWord::new(owner_of(0), 0, 5).0,
            file: FileWord::new(owner_of(1), -4).0,
            ..Stock::default()
        };
        let flights = in_flight(|index| counters.parent(index), [&stock]);
        assert_eq!(flights[&1], InFlight { stocked: 10, file: -4 });
        assert_eq!(flights[&0], InFlight { stocked: 15, file: -4 });
        assert_eq!(Need::of(&all[1], flights[&1]), Need { file: 26, needed: 24 });
        assert_eq!(Need::of(&all[0], flights[&0]), Need { file: 26, needed: 59 });
    }

    #[test]
    fn figures_that_do_not_go_together_stay_in_their_bounds() {
        let none = InFlight::default();
        assert_eq!(Need::of(&counter(0, 5, 9), none), Need { file: 5, needed: 0 });
        assert_eq!(Need::of(&counter(0, 5, u64::MAX), none), Need { file: 0, needed: 5 });
        let more = InFlight { stocked: 9, file: i64::MIN };
        assert_eq!(Need::of(&counter(0, 5, 2), more), Need { file: 0, needed: 0 });
    }

    #[test]
    fn a_circle_ends() {
        let stock = Stock { word: StockWord::new(1, 0, 1).0, ..Stock::default() };
        assert_eq!(in_flight(|_| Some(0), [&stock])[&0].stocked, u64::from(MAX_DEPTH));
    }
}
