//! What would be read again at every limit at once, if the kernel kept exactly the pages that were used last: Mattson's
//! stack algorithm with a capacity that moves.
//!
//! At a limit L there is room for L less what is taken, U(s), at the time s. A page that was used at t₀ and again at t₁ is
//! still there if U(s) and the distinct pages used since t₀, D(s), left room for it all the time. So the smallest limit
//! at which it need not be read again is
//!
//! ```text
//! c = 1 + max over s in (t₀, t₁] of U(s) + D(s)
//! ```
//!
//! Since the room grows with L at every time, a larger limit keeps all that a smaller one does, and one pass is enough.
//! [`History`] has U + D of each page and its highest value, so that this pass takes O(log n) for each use.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::history::History;
use super::timeline::PARTS;
use super::uses::{Use, Uses, What};

/// Fewer pages than this are not worth a smaller tree.
const FEWEST_PLACES: usize = 1024;
/// Critical limits are kept to so many binary digits (0.05 %), rounded up.
const DIGITS: u32 = 11;

/// Pages read again, by limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Curve {
    /// From this limit on, in pages, so many less are read again in this part of the run; in the order of limits.
    saved: BTreeMap<(u64, u16), u64>,
}

impl Curve {
    /// Of what was used.
    pub fn of(uses: &Uses) -> Self {
        let mut stack = Stack::new(uses);
        let mut curve = Self::default();
        for event in &uses.events {
            match event.what {
                What::Taken(index) => stack.take(uses.taken[index as usize].all()),
                What::Enter(used) | What::First(used) => drop(stack.put(used)),
                What::Leave(page) => drop(stack.remove(page)),
                What::Again(used) => {
                    if let Some(critical) = stack.put(used) {
                        let weight = u64::from(used.weight);
                        *curve.saved.entry((rounded(critical), event.part)).or_default() += weight;
                    }
                }
            }
        }
        curve
    }

    /// Pages that would be read again at a limit of so many, by the parts of the run.
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

/// The pages in the cache, in the order of their last use, each with U + D.
struct Stack {
    history: History,
    /// By page, where it is.
    places: Vec<Option<usize>>,
    /// By page, how many it stands for.
    weights: Vec<u32>,
    /// By place, the page there; it may have left.
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

    /// Takes a page out; returns the smallest limit at which it would still be there.
    fn remove(&mut self, page: u32) -> Option<u64> {
        let place = self.places[page as usize].take()?;
        let (_, highest) = self.history.get(place);
        self.history.change_before(place, -i64::from(self.weights[page as usize]));
        Some(1 + highest.max(0).cast_unsigned())
    }

    /// Puts a page on top; returns what [`Self::remove`] does, if it was there before.
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

    /// Closes the gaps; there is room for as many again as are left.
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
