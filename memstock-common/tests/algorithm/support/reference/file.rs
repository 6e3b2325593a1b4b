//! The reference for page cache: which pages are, what was reported to the counters, and what is needed.

use std::collections::BTreeMap;

use super::{Page, Place, Reference};

impl Reference {
    /// Adds each cgroup's own pages to it and its ancestors.
    fn summed(&self, own: impl IntoIterator<Item = (u32, i64)>) -> BTreeMap<u32, i64> {
        let mut by_group = BTreeMap::<u32, i64>::new();
        for (group, nr_pages) in own {
            *by_group.entry(group).or_default() += nr_pages;
        }
        let mut sums: BTreeMap<_, i64> = self.groups.keys().map(|&group| (group, 0)).collect();
        for (group, nr_pages) in by_group {
            for at in self.lineage(group) {
                *sums.entry(at).or_default() += nr_pages;
            }
        }
        sums
    }

    /// Page cache of all cgroups, according to the pages.
    fn file_pages(&self) -> BTreeMap<u32, i64> {
        self.summed(self.pages.values().map(|page| (page.group, i64::from(page.file))))
    }

    /// Page cache of all cgroups, as reported to their counters.
    pub fn files(&self) -> BTreeMap<u32, i64> {
        let told = self.pages.values().map(|page| (page.group, i64::from(page.file)));
        self.summed(told.chain(self.untold.values().map(|&(group, change)| (group, -change))))
    }

    /// A folio is added to the page cache.
    pub fn cache(&mut self, cpu: u32, pfn: u64, nr_pages: u64) {
        let Some(group) = self.pages.get(&pfn).map(|first| first.group) else { return };
        let is_added = |page: &Page| page.group == group && !page.file;
        let folio = self.pages.range(pfn..pfn + nr_pages);
        let added: Vec<_> = folio.filter(|(_, page)| is_added(page)).map(|(&pfn, _)| pfn).collect();
        if !added.is_empty() {
            self.file_changed(cpu, group, added.len() as i64);
        }
        for at in self.lineage(group) {
            let member = self.member(at);
            member.cached += if member.unjudged { added.len() as u64 } else { 0 };
        }
        for pfn in added {
            self.pages.entry(pfn).and_modify(|page| page.file = true);
        }
    }

    /// Page cache is about to grow or shrink by `change` pages; what is reported describes the state before.
    pub fn file_changed(&mut self, cpu: u32, group: u32, change: i64) {
        let place = self.place(cpu, group);
        if self.untold.get(&place).is_some_and(|other| other.0 != group) {
            self.report(place);
        }
        let sum = self.untold.get(&place).map_or(0, |untold| untold.1) + change;
        if sum.unsigned_abs() < self.shape.batch.into() {
            self.untold.insert(place, (group, sum));
        } else {
            if sum < 0 {
                self.gone += 1;
                self.observe();
            }
            self.untold.remove(&place);
        }
    }

    /// Reports what a CPU has yet to report.
    pub fn report(&mut self, place: Place) {
        if let Some(&(_, change)) = self.untold.get(&place) {
            if change < 0 {
                self.gone += 1;
                self.observe();
            }
            self.untold.remove(&place);
        }
    }

    /// Records what is really needed; counters know only what was reported to them.
    pub fn observe(&mut self) {
        let (usages, files) = (self.usages(), self.file_pages());
        let owned = self.summed(self.pages.values().map(|page| (page.group, 1)));
        for (at, member) in &mut self.groups {
            let charged = (usages[at] as i64 - files[at]).max(0) as u64;
            member.most_charged = member.most_charged.max(charged);
            let owned = (owned[at] - files[at]) as u64;
            if owned > member.most_owned {
                (member.most_owned, member.unjudged, member.cached) = (owned, true, 0);
            }
        }
    }

    /// Bounds for the highest need that a counter may have seen.
    ///
    /// Pages that became page cache before the usage changed again were never needed. A counter misses what CPUs have
    /// yet to report, in either direction: less than a batch per slot. It also misses what replaced the page cache
    /// whose removal was last reported: of the pages of a block, and of less than a batch reported with it, at most a
    /// batch is then in a stock, to be reused, and less than a batch in an uncharge batch; the others were uncharged.
    /// What exceeds the need itself is charged, but not owned.
    pub fn need(&self, group: u32) -> std::ops::RangeInclusive<u64> {
        let batch = u64::from(self.shape.batch);
        let untold = self.stocks.len() as u64 * (batch - 1);
        let member = &self.groups[&group];
        let least = member.most_owned.saturating_sub(untold + 3 * batch + member.cached);
        least..=member.most_charged + untold
    }
}
