//! The reference for huge pages that do not fit.

use memstock_common::huge::MAX_HUGE;

use super::Reference;

impl Reference {
    /// Drops allowances that are no longer needed. Called whenever something may have been uncharged.
    pub fn forget_huge(&mut self) {
        let some = self.groups.iter().filter(|(_, group)| group.huge > 0);
        for at in some.map(|(&at, _)| at).collect::<Vec<_>>() {
            if !self.is_above(at, 0) {
                self.member(at).huge = 0;
            }
        }
    }

    pub fn allow_huge(&mut self, group: u32, nr_pages: u64) {
        for at in self.lineage(group) {
            let huge = self.groups[&at].huge;
            if huge < MAX_HUGE && self.is_above(at, huge) {
                self.member(at).huge += nr_pages;
            }
        }
    }

    /// Whether the usage is above one of the limits by more than `more` pages.
    fn is_above(&self, group: u32, more: u64) -> bool {
        let resources = if self.shape.memsw { 0..2 } else { 0..1 };
        let (usage, limits) = (self.usage(group), self.groups[&group].limits);
        resources.into_iter().any(|resource| usage > limits[resource].saturating_add(more))
    }
}
