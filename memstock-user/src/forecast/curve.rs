//! Computes what would be read again at every limit at once, if the kernel kept exactly the pages used last: Mattson's
//! stack algorithm with a capacity that changes over time.
//!
//! At a limit L, the cache has room for L - U(s) at time s, where U(s) is what other memory takes. A page used at t₀
//! and again at t₁ is still cached if there was always room for D(s), the distinct pages used since t₀. So the smallest
//! limit at which it is not read again is
//!
//! ```text
//! c = 1 + max over s in (t₀, t₁] of U(s) + D(s)
//! ```
//!
//! Since the room grows with L at every time, a larger limit keeps all that a smaller one keeps, and one pass is
//! enough. [`History`] keeps U + D of each page and its highest value, so that this pass takes O(log n) for each use.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::history::History;
use super::timeline::PARTS;
use super::uses::{Use, Uses, What};

/// Smaller trees are not worth it.
const FEWEST_PLACES: usize = 1024;
/// Critical limits are rounded up to this many binary digits (0.05 %).
const DIGITS: u32 = 11;

/// The pages read again, as a function of the limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Curve {
    /// The pages no longer read again from this limit (in pages) on, in this part of the run; sorted by limit.
    saved: BTreeMap<(u64, u16), u64>,
}

impl Curve {
    /// Computes the curve.
    pub fn of(uses: &Uses) -> Self {
        let mut stack = Stack::new(uses);
        let mut curve = Self::default();
        for (part, what) in uses.each() {
            match what {
                What::Taken(index) => stack.take(uses.taken[index as usize].all()),
                What::Enter(used) | What::Dirty(used) | What::First(used) => drop(stack.put(used)),
                What::Leave(page) => drop(stack.remove(page)),
                What::Again(used) => {
                    if let Some(critical) = stack.put(used) {
                        let weight = u64::from(used.weight);
                        *curve.saved.entry((rounded(critical), part)).or_default() += weight;
                    }
                }
            }
        }
        curve
    }

    /// The pages that would be read again at a limit of `limit` pages, by parts of the run.
    pub fn rereads(&self, limit: u64) -> [u64; PARTS] {
        let mut by_time = [0; PARTS];
        for (&(_, part), weight) in self.saved.range((Excluded((limit, u16::MAX)), Unbounded)) {
            by_time[usize::from(part)] += weight;
        }
        by_time
    }
}

fn rounded(limit: u64) -> u64 {
    let shift = (u64::BITS - limit.leading_zeros()).saturating_sub(DIGITS);
    limit.div_ceil(1 << shift) << shift
}

/// The cached pages in the order of their last use, each with U + D.
struct Stack {
    history: History,
    /// The place of each page.
    places: Vec<Option<usize>>,
    /// How many pages each page stands for.
    weights: Vec<u32>,
    /// The page at each place; it may have left.
    pages: Vec<u32>,
    taken: i64,
}

impl Stack {
    fn new(uses: &Uses) -> Self {
        Self {
            history: History::with_places(FEWEST_PLACES),
            places: vec![None; uses.file_of.len()],
            weights: vec![0; uses.file_of.len()],
            pages: Vec::new(),
            taken: 0,
        }
    }

    fn take(&mut self, taken: u64) {
        let taken = taken.min(i64::MAX as u64 / 4).cast_signed();
        self.history.change_before(usize::MAX, taken - self.taken);
        self.taken = taken;
    }

    /// Removes a page; returns the smallest limit at which it would still be cached.
    fn remove(&mut self, page: u32) -> Option<u64> {
        let place = self.places[page as usize].take()?;
        let (_, highest) = self.history.get(place);
        self.history.change_before(place, -i64::from(self.weights[page as usize]));
        Some(1 + highest.max(0).cast_unsigned())
    }

    /// Puts a page on top; returns what [`Self::remove`] does if it was cached.
    fn put(&mut self, Use { page, weight }: Use) -> Option<u64> {
        let critical = self.remove(page);
        if self.pages.len() == self.history.places() {
            self.compact();
        }
        let place = self.pages.len();
        self.history.change_before(place, i64::from(weight));
        self.history.set(place, self.taken, self.taken);
        self.pages.push(page);
        self.places[page as usize] = Some(place);
        self.weights[page as usize] = weight;
        critical
    }

    /// Closes the gaps, and makes room for as many pages again as are left.
    fn compact(&mut self) {
        let pages = std::mem::take(&mut self.pages).into_iter().enumerate();
        let left: Vec<_> = pages
            .filter(|&(place, page)| self.places[page as usize] == Some(place))
            .map(|(place, page)| (page, self.history.get(place)))
            .collect();
        self.history = History::with_places((2 * left.len()).max(FEWEST_PLACES));
        for (place, (page, (now, highest))) in left.into_iter().enumerate() {
            self.history.set(place, now, highest);
            self.places[page as usize] = Some(place);
            self.pages.push(page);
        }
    }
}

#[cfg(test)]
mod tests;
