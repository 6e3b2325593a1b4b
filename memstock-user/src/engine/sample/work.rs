//! What cgroups did on all CPUs together: the credited figures of each, plus the faults that slots have yet to credit
//! to it.
//!
//! A miss moves faults from the slot to the statistics of the cgroup that the slot credits; a read in between would
//! count them twice or not at all. So a cgroup's figures are accepted only if the slots that credit it were the same
//! before and after its statistics were read. Cgroups that a slot credited in between are read again. If misses come
//! faster than they can be read, the last figures stay: off by at most a batch for each CPU, for this one reading.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use memstock_common::{CgroupCpu, Stock, index_of};

use super::{Stocks, stocks};
use crate::engine::Engine;

/// Attempts to read cgroups that were disturbed.
const TRIES: u32 = 16;

/// What a cgroup did on all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Page faults.
    pub faults: u64,
    /// Pages charged from a stock.
    pub from_stock: u64,
    /// Pages charged with a charge on the shared counters.
    pub missed: u64,
    /// Charges of only the pages needed.
    pub singles: u64,
    /// Pages charged although a limit was reached.
    pub forced: u64,
}

impl Work {
    fn of(shares: &[CgroupCpu<u64>]) -> Self {
        shares.iter().fold(Self::default(), |sum, share| Self {
            faults: sum.faults + share.faults,
            from_stock: sum.from_stock + share.from_stock,
            missed: sum.missed + share.missed,
            singles: sum.singles + share.singles,
            forced: sum.forced + share.forced,
        })
    }
}

/// The work of each of the cgroups with the counters `indices`, which ascend.
pub fn of(engine: &Engine, indices: &[u32]) -> Result<Vec<Work>> {
    let mut work = vec![Work::default(); indices.len()];
    let mut wanted = indices.to_vec();
    let mut before = stocks(engine)?;
    for _ in 0..TRIES {
        let mut all = indices.iter().zip(&mut work);
        engine.cgroup_cpus(&wanted, |index, shares| {
            // Both ascend.
            if let Some((_, work)) = all.find(|(of, _)| **of == index) {
                *work = Work::of(shares);
            }
        })?;
        let after = stocks(engine)?;
        // Only to those that were read just now: the others have theirs.
        for (index, faults) in uncredited(&after) {
            if wanted.binary_search(&index).is_ok()
                && let Ok(at) = indices.binary_search(&index)
            {
                work[at].faults += faults;
            }
        }
        let disturbed = disturbed(&before, &after);
        wanted.retain(|index| disturbed.contains(index));
        if wanted.is_empty() {
            break;
        }
        before = after;
    }
    Ok(work)
}

/// Faults in slots, by the counter index of the cgroup to be credited.
fn uncredited(stocks: &Stocks) -> BTreeMap<u32, u64> {
    let mut faults = BTreeMap::new();
    for (_, stock) in stocks.iter().flatten() {
        // The two words of a slot that is being credited may not fit together; less than nothing counts as nothing.
        *faults.entry(credited(stock)).or_default() += stock.faults.saturating_sub(stock.credited);
    }
    faults
}

/// The cgroups that slots credited between the two readings, by counter index.
fn disturbed(before: &Stocks, after: &Stocks) -> BTreeSet<u32> {
    let pairs = before.iter().flatten().zip(after.iter().flatten());
    let moved = pairs.filter(|((_, before), (_, after))| {
        (before.credited, before.creditor) != (after.credited, after.creditor)
    });
    moved.flat_map(|((_, before), (_, after))| [before, after].map(credited)).collect()
}

fn credited(stock: &Stock<u64>) -> u32 {
    index_of(stock.creditor as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(faults: u64, credited: u64, creditor: u64) -> Stock<u64> {
        Stock { faults, credited, creditor, ..Stock::default() }
    }

    #[test]
    fn uncredited_faults_are_the_credited_ones() {
        let stocks = vec![vec![(0, slot(10, 4, 1)), (1, slot(7, 7, 2))], vec![(0, slot(9, 4, 1))]];
        assert_eq!(uncredited(&stocks), BTreeMap::from([(0, 11), (1, 0)]));
        // Read in parts, while it was being credited.
        assert_eq!(uncredited(&vec![vec![(0, slot(4, 5, 1))]]), BTreeMap::from([(0, 0)]));
    }

    #[test]
    fn only_who_is_credited_is_disturbed() {
        let before = vec![vec![(0, slot(10, 4, 1)), (1, slot(7, 7, 2))]];
        let hit = vec![vec![(0, slot(11, 4, 1)), (1, slot(9, 7, 2))]];
        assert_eq!(disturbed(&before, &hit), BTreeSet::new());
        let other = vec![vec![(0, slot(10, 10, 3)), (1, slot(7, 7, 2))]];
        assert_eq!(disturbed(&before, &other), BTreeSet::from([0, 2]));
        let same = vec![vec![(0, slot(40, 10, 1)), (1, slot(7, 7, 2))]];
        assert_eq!(disturbed(&before, &same), BTreeSet::from([0]));
    }

    #[test]
    fn shares_add_up() {
        let share = CgroupCpu { faults: 1, from_stock: 2, missed: 5, singles: 3, forced: 4 };
        let work = Work::of(&[share, share]);
        assert_eq!(work, Work { faults: 2, from_stock: 4, missed: 10, singles: 6, forced: 8 });
        assert_eq!(Work::of(&[]), Work::default());
    }
}
