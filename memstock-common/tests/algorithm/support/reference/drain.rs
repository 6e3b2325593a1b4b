//! The reference for drains.

use super::{Place, Reference, Stock};

impl Reference {
    pub(super) fn drain_stock(&mut self, place: Place) -> u64 {
        let nr_pages = self.stock(place).charged();
        if nr_pages > 0 {
            self.observe();
            *self.stock(place) = Stock::default();
            self.tally(place).drains += 1;
        }
        nr_pages
    }

    pub(super) fn drain_batch(&mut self, place: Place) -> u64 {
        self.observe();
        let Some((_, nr_pages)) = self.uncharging.remove(&place) else { return 0 };
        self.tally(place).drains += 1;
        nr_pages
    }

    /// Drains a CPU of what is charged below `subtree`, or of everything.
    pub fn drain(&mut self, cpu: u32, subtree: Option<u32>) -> u64 {
        let mut drained = 0;
        let is_meant = |this: &Self, group: Option<u32>| {
            subtree.is_none_or(|top| group.is_some_and(|group| this.is_below(group, top)))
        };
        for place in (0..self.shape.slots).map(|slot| (cpu, slot)) {
            if is_meant(self, self.untold.get(&place).map(|untold| untold.0)) {
                self.report(place);
            }
            if is_meant(self, self.stocks[&place].group) {
                drained += self.drain_stock(place);
            }
            if is_meant(self, self.uncharging.get(&place).map(|freed| freed.0)) {
                drained += self.drain_batch(place);
            }
        }
        drained
    }
}
