//! The second opinion on page cache: which pages are, what the counters were told of it, and what is needed.

use std::collections::BTreeMap;

use super::{Page, Place, Reference};

impl Reference {
    /// Sums of what each cgroup has itself, with all that is below it.
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

    /// Page cache of all cgroups, as the pages have it.
    fn file_pages(&self) -> BTreeMap<u32, i64> {
        self.summed(self.pages.values().map(|page| (page.group, i64::from(page.file))))
    }

    /// Page cache of all cgroups, as their counters were told of it.
    pub fn files(&self) -> BTreeMap<u32, i64> {
        let told = self.pages.values().map(|page| (page.group, i64::from(page.file)));
        self.summed(told.chain(self.untold.values().map(|&(group, change)| (group, -change))))
    }

    /// A folio is added to the page cache, by whoever.
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

    /// So many pages of page cache are about to come or to go; what is told was before that.
    pub fn file_changed(&mut self, cpu: u32, group: u32, change: i64) {
        let place = self.place(cpu, group);
        if self.untold.get(&place).is_some_and(|other| other.0 != group) {
            self.tell(place);
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

    /// Tells what a CPU has yet to tell.
    pub fn tell(&mut self, place: Place) {
        if let Some(&(_, change)) = self.untold.get(&place) {
            if change < 0 {
                self.gone += 1;
                self.observe();
            }
            self.untold.remove(&place);
        }
    }

    /// Notes what is really needed, of which the counters know only what they are told.
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

    /// What the highest need is between, whatever became of it on the way.
    ///
    /// What became page cache before the usage changed again never was needed. A counter does not know what the CPUs have yet to tell, for or against it, less than a batch in each slot. Nor
    /// what the page cache that it was last told to have gone has given its place to: of the pages of a block and of
    /// less than a batch that were told with it, at most a batch is in a stock then, to be had again, and less than a
    /// batch in an uncharge batch; the others were uncharged. What is above the need itself is charged, and not owned.
    pub fn need(&self, group: u32) -> std::ops::RangeInclusive<u64> {
        let batch = u64::from(self.shape.batch);
        let untold = self.stocks.len() as u64 * (batch - 1);
        let member = &self.groups[&group];
        let least = member.most_owned.saturating_sub(untold + 3 * batch + member.cached);
        least..=member.most_charged + untold
    }
}
