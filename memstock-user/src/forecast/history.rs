//! A line of numbers in which all places before an end can be raised or lowered at once, and which remembers the
//! highest value of each: a segment tree whose pending changes carry their highest prefix sum. All operations take
//! O(log n).
//!
//! Used by [`super::curve`], which keeps a page at each place. Knows nothing of pages.

/// In an inner node, the pending change of all places below: its sum, and the most that it came to on the way. In a
/// leaf, the number and its highest value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Change {
    sum: i64,
    most: i64,
}

impl Change {
    fn then(&mut self, next: Self) {
        self.most = self.most.max(self.sum + next.most);
        self.sum += next.sum;
    }
}

/// The line of numbers.
#[derive(Clone, Debug)]
pub struct History {
    /// A heap: the children of n are 2n and 2n + 1; its second half holds the places.
    nodes: Vec<Change>,
}

impl History {
    /// Makes at least this many places, and at least one.
    pub fn with_places(places: usize) -> Self {
        Self { nodes: vec![Change::default(); 2 * places.max(1).next_power_of_two()] }
    }

    /// The number of places.
    pub fn places(&self) -> usize {
        self.nodes.len() / 2
    }

    /// Adds `by` to the numbers of all places before `end`.
    pub fn change_before(&mut self, end: usize, by: i64) {
        let change = Change { sum: by, most: by.max(0) };
        if end >= self.places() {
            self.nodes[1].then(change);
            return;
        }
        self.descend(end, change);
    }

    /// The number at a place, and the highest it has been since it was set.
    pub fn get(&mut self, place: usize) -> (i64, i64) {
        let leaf = self.descend(place, Change::default());
        (self.nodes[leaf].sum, self.nodes[leaf].most)
    }

    /// Sets the number at a place and its highest value.
    pub fn set(&mut self, place: usize, now: i64, highest: i64) {
        let leaf = self.descend(place, Change::default());
        self.nodes[leaf] = Change { sum: now, most: highest };
    }

    /// Pushes pending changes down to `place` and applies `change` to all places before it; returns the leaf.
    fn descend(&mut self, place: usize, change: Change) -> usize {
        let (mut node, mut half) = (1, self.places() / 2);
        while node < self.places() {
            let pending = std::mem::take(&mut self.nodes[node]);
            let (left, right) = (2 * node, 2 * node + 1);
            self.nodes[left].then(pending);
            self.nodes[right].then(pending);
            if place & half == 0 {
                node = left;
            } else {
                self.nodes[left].then(change);
                node = right;
            }
            half /= 2;
        }
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Holds for all operations in any order.
        #[test]
        fn it_is_what_a_plain_list_says(
            steps in prop::collection::vec((0_usize..9, 0_usize..9, -20_i64..20), 0..200)
        ) {
            let mut tree = History::with_places(6);
            let mut plain = vec![(0, 0); 8];
            prop_assert_eq!(tree.places(), plain.len());
            for (what, place, number) in steps {
                match what {
                    0 if place < 8 => {
                        tree.set(place, number, number);
                        plain[place] = (number, number);
                    }
                    1 if place < 8 => prop_assert_eq!(tree.get(place), plain[place]),
                    _ => {
                        tree.change_before(place, number);
                        for (now, highest) in plain.iter_mut().take(place) {
                            *now += number;
                            *highest = (*highest).max(*now);
                        }
                    }
                }
            }
            for (place, both) in plain.into_iter().enumerate() {
                prop_assert_eq!(tree.get(place), both);
            }
        }
    }

    #[test]
    fn one_place_is_enough() {
        let mut tree = History::with_places(0);
        tree.set(0, 5, 5);
        tree.change_before(1, 3);
        tree.change_before(1, -4);
        tree.change_before(0, 100);
        assert_eq!(tree.get(0), (4, 8));
    }
}
