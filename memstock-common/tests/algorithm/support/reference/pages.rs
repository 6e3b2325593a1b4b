//! The reference for pages (owners, frees, requests of user space), and for cgroups that are added and removed.

use std::ops::Range;

use memstock_common::NO_LIMIT;
use memstock_common::control::Refusal;

use super::{Group, Page, Reference, Stock};

/// Runs of one owner in a block that are uncharged, and the first page of one more run.
const RUNS: usize = 3;

/// Pages in a chunk of the owner map; a block must lie within one.
const CHUNK_PAGES: u64 = 1024;

impl Reference {
    /// The pages of a block; `None`, and counted as such, if it is outside the owner map.
    fn block(&mut self, pfn: u64, order: u32) -> Option<Range<u64>> {
        let block = self.folio(pfn, order);
        if block.is_none() {
            self.outside += 1 << order;
        }
        block
    }

    /// The same without counting, which only allocation and free do.
    fn folio(&self, pfn: u64, order: u32) -> Option<Range<u64>> {
        let is_inside = pfn < CHUNK_PAGES * u64::from(self.shape.chunks) && order <= 10;
        is_inside.then(|| pfn..pfn + (1 << order))
    }

    /// The pages are freed unseen.
    pub fn lose_free(&mut self, pfn: u64, order: u32) {
        for (_, page) in self.pages.range_mut(pfn..pfn + (1 << order)) {
            page.stale = true;
        }
    }

    /// A block is allocated; it must have been free.
    pub fn alloc(&mut self, cpu: u32, task: Option<u32>, pfn: u64, order: u32) {
        let Some(block) = self.block(pfn, order) else { return };
        let group = task.and_then(|task| self.charged_to(task));
        assert!(self.pages.range(block.clone()).all(|(_, page)| page.stale), "in use");
        let before = self.pages.len();
        let end = self.disclaim(cpu, block.clone());
        self.healed += (before - self.pages.len()) as u64;
        if let Some(group) = group {
            self.commit(cpu, group, end - block.start);
            let place = self.place(cpu, group);
            *self.charged.entry((cpu, group)).or_default() += end - block.start;
            *self.charged_in.entry(place).or_default() += end - block.start;
            for pfn in block.start..end {
                self.pages.insert(pfn, Page { group, ..Page::default() });
            }
            self.hand = None;
        }
    }

    /// A folio is added to the page cache: if its first page has no owner, all such pages are charged to the task.
    pub fn claim(&mut self, cpu: u32, task: Option<u32>, pfn: u64, order: u32) {
        let Some(block) = self.folio(pfn, order) else { return };
        let Some(group) = task.and_then(|task| self.charged_to(task)) else { return };
        if self.pages.contains_key(&pfn) {
            return;
        }
        let claimed: Vec<_> = block.filter(|pfn| !self.pages.contains_key(pfn)).collect();
        let nr_pages = claimed.len() as u64;
        self.commit(cpu, group, nr_pages);
        let place = self.place(cpu, group);
        *self.charged.entry((cpu, group)).or_default() += nr_pages;
        *self.charged_in.entry(place).or_default() += nr_pages;
        for pfn in claimed {
            self.pages.insert(pfn, Page { group, ..Page::default() });
        }
        self.hand = None;
    }

    pub fn free(&mut self, cpu: u32, pfn: u64, order: u32) {
        if let Some(block) = self.block(pfn, order) {
            self.disclaim(cpu, block);
        }
    }

    /// Takes the pages of a block from their owners and uncharges them. Returns where it stopped.
    fn disclaim(&mut self, cpu: u32, block: Range<u64>) -> u64 {
        let former: Vec<_> =
            self.pages.range(block.clone()).map(|(&pfn, page)| (pfn, page.group)).collect();
        let runs: Vec<_> = former.chunk_by(|a, b| a.1 == b.1).collect();
        let end = runs.get(RUNS).map_or(block.end, |run| run[0].0 + 1);
        self.mixed += block.end - end;
        for run in runs {
            self.observe();
            let pages: Vec<_> = run.iter().filter(|page| page.0 < end).collect();
            let is_file = |page: &&&(u64, u32)| self.pages[&page.0].file;
            let nr_file = pages.iter().filter(is_file).count() as i64;
            if nr_file > 0 {
                self.file_changed(cpu, run[0].1, -nr_file);
            }
            for (pfn, _) in &pages {
                self.pages.remove(pfn);
            }
            if !pages.is_empty() {
                self.uncharge(cpu, run[0].1, pages.len() as u64);
            }
        }
        end
    }

    /// Charges those of the pages that have no owner.
    pub fn adopt(&mut self, group: u32, pages: &[u64], file: bool) -> u64 {
        let before = self.pages.len();
        for &pfn in pages {
            self.pages.entry(pfn).or_insert(Page { group, unconfirmed: true, stale: false, file });
        }
        let usages = self.usages();
        for at in self.lineage(group) {
            let member = self.member(at);
            member.peak = member.peak.max(usages[&at]);
            member.overrun = true;
        }
        self.observe();
        (self.pages.len() - before) as u64
    }

    pub fn doubt(&mut self, group: u32, pages: &[u64]) -> u64 {
        let mut doubted = 0;
        for pfn in pages {
            if let Some(page) = self.pages.get_mut(pfn).filter(|page| page.group == group) {
                doubted += u64::from(!page.unconfirmed);
                page.unconfirmed = true;
            }
        }
        doubted
    }

    pub fn disown(&mut self, group: u32, pages: &[u64]) -> u64 {
        let is_gone = |(pfn, page): (&u64, &Page)| {
            page.group == group && page.unconfirmed && pages.contains(pfn)
        };
        let gone: Vec<_> =
            self.pages.iter().filter(|&page| is_gone(page)).map(|page| *page.0).collect();
        let nr_file = gone.iter().filter(|pfn| self.pages[pfn].file).count();
        if nr_file > 0 {
            self.observe();
        }
        for pfn in &gone {
            self.pages.remove(pfn);
        }
        gone.len() as u64
    }

    /// Gives pages of a closed cgroup to its parent, or to nobody if it has none; `None` if it is open.
    pub fn reparent(&mut self, group: u32, pages: &[u64]) -> Option<u64> {
        let member = &self.groups[&group];
        if member.open {
            return None;
        }
        let above = member.parent;
        let is_moved = |(pfn, page): (&u64, &Page)| page.group == group && pages.contains(pfn);
        let moved: Vec<_> =
            self.pages.iter().filter(|&page| is_moved(page)).map(|page| *page.0).collect();
        for pfn in &moved {
            match above {
                Some(above) => drop(self.pages.entry(*pfn).and_modify(|page| page.group = above)),
                None => drop(self.pages.remove(pfn)),
            }
        }
        Some(moved.len() as u64)
    }

    /// The contents of a block move to another one, whose frames may have owners.
    pub fn migrate(&mut self, cpu: u32, from: u64, to: u64, order: u32) {
        self.free(cpu, to, order);
        let end = CHUNK_PAGES * u64::from(self.shape.chunks);
        if from.max(to) >= end {
            return;
        }
        for n in
            (0..1 << order).filter(|n| self.pages.contains_key(&(from + n))).collect::<Vec<_>>()
        {
            // Left over from a block with too many owners.
            if let Some(&Page { group, file, .. }) = self.pages.get(&(to + n)) {
                if file {
                    self.file_changed(cpu, group, -1);
                }
                self.displaced += 1;
                self.pages.remove(&(to + n));
                self.uncharge(cpu, group, 1);
            }
            if let Some(page) = self.pages.remove(&(from + n)) {
                self.pages.insert(to + n, Page { unconfirmed: false, ..page });
            }
        }
    }

    pub fn set_limit(
        &mut self,
        group: u32,
        resource: usize,
        nr_pages: u64,
    ) -> Result<u32, Refusal> {
        let mut limits = self.groups[&group].limits;
        let is_lower = nr_pages < limits[resource];
        limits[resource] = nr_pages;
        if limits[0] != NO_LIMIT && limits[1] < limits[0] {
            return Err(Refusal::Order);
        }
        let is_counted = resource == 0 || self.shape.memsw;
        if is_lower && is_counted && self.usage(group) > nr_pages {
            return Err(Refusal::Busy);
        }
        let member = self.member(group);
        member.limits[resource] = nr_pages;
        member.highest_limits[resource] = member.highest_limits[resource].max(nr_pages);
        Ok(0)
    }

    pub fn register(&mut self, group: u32, parent: Option<u32>, limit: u64) {
        let limits = [limit, u64::MAX];
        let member = Group {
            parent,
            open: true,
            limits,
            highest_limits: limits,
            failcnt: [0; 2],
            peak: 0,
            most_charged: 0,
            most_owned: 0,
            unjudged: false,
            cached: 0,
            faults: 0,
            from_stock: 0,
            missed: 0,
            singles: 0,
            forced: 0,
            huge: 0,
            overrun: false,
        };
        self.charged.retain(|of, _| of.1 != group);
        assert!(self.groups.insert(group, member).is_none());
    }

    /// The cgroup is dying from now on. What it was charged stays.
    pub fn close(&mut self, group: u32) {
        self.member(group).open = false;
    }

    /// Gives back what one CPU holds for a cgroup.
    pub fn flush(&mut self, cpu: u32, group: u32) -> u64 {
        let place = self.place(cpu, group);
        let mut flushed = 0;
        if self.stocks[&place].group == Some(group) {
            flushed += self.drain_stock(place);
            *self.stock(place) = Stock::default();
        }
        if self.uncharging.get(&place).is_some_and(|freed| freed.0 == group) {
            flushed += self.drain_batch(place);
        }
        if self.untold.get(&place).is_some_and(|untold| untold.0 == group) {
            self.report(place);
        }
        flushed
    }

    /// False if it is not dying, is still charged, or has children.
    pub fn release(&mut self, group: u32) -> bool {
        let is_parent = self.groups.values().any(|other| other.parent == Some(group));
        let is_dead = !self.is_open(group) && !is_parent && self.usage(group) == 0;
        if is_dead {
            self.groups.remove(&group);
        }
        is_dead
    }
}
