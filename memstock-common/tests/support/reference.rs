//! A second opinion: memstock as a sequential, slow and obvious program that keeps no counters.
//!
//! It knows who owns which pages and what each stock holds, and works everything else out anew
//! each time it is asked. It shares no code with what it is compared with.

use std::collections::BTreeMap;

use crate::support::Shape;

/// One registered cgroup.
pub struct Group {
    pub parent: Option<u32>,
    /// False from close to release.
    pub open: bool,
    /// Pages in use.
    pub owned: u64,
    /// Stocked pages that were displaced after the cgroup was closed; release takes them back.
    pub orphaned: u64,
    /// Memory, memory+swap.
    pub limits: [u64; 2],
    pub highest_limits: [u64; 2],
    pub failcnt: [u64; 2],
    pub peak: u64,
    pub faults: u64,
    pub misses: u64,
    pub singles: u64,
    pub forced: u64,
    /// A page below was forced in.
    pub overrun: bool,
}

pub struct Reference {
    pub shape: Shape,
    pub groups: BTreeMap<u32, Group>,
    /// By CPU and slot: cgroup and pages. No entry is empty.
    pub stocks: BTreeMap<(u32, u32), (u32, u64)>,
    pub orphaned: u64,
}

impl Reference {
    pub fn new(shape: Shape) -> Self {
        Self { shape, groups: BTreeMap::new(), stocks: BTreeMap::new(), orphaned: 0 }
    }

    /// The cgroup and everything above it.
    pub fn lineage(&self, group: u32) -> Vec<u32> {
        std::iter::successors(Some(group), |at| self.groups[at].parent).collect()
    }

    fn below(&self, ancestor: u32) -> impl Iterator<Item = u32> {
        self.groups.keys().copied().filter(move |&group| self.lineage(group).contains(&ancestor))
    }

    pub fn stocked_for(&self, group: u32) -> u64 {
        self.stocks.values().filter(|stock| stock.0 == group).map(|stock| stock.1).sum()
    }

    /// The law of conservation.
    pub fn usage(&self, group: u32) -> u64 {
        let due = |at| self.groups[&at].owned + self.groups[&at].orphaned + self.stocked_for(at);
        self.below(group).map(due).sum()
    }

    pub fn is_open(&self, group: u32) -> bool {
        self.groups.get(&group).is_some_and(|group| group.open)
    }

    fn slot(&self, group: u32) -> u32 {
        (group + 1) % self.shape.slots
    }

    pub fn fault(&mut self, cpu: u32, group: u32) {
        let place = (cpu, self.slot(group));
        if let Some((_, left)) = self.stocks.get(&place).filter(|stock| stock.0 == group).copied() {
            self.stock(place, group, left - 1);
            let group = self.member(group);
            group.owned += 1;
            group.faults += 1;
            return;
        }
        if !self.is_open(group) {
            return;
        }
        self.give_back(place);
        self.member(group).faults += 1;
        self.member(group).misses += 1;
        self.charge(place, group);
        for at in self.lineage(group) {
            let usage = self.usage(at);
            let member = self.member(at);
            member.peak = member.peak.max(usage);
        }
    }

    fn charge(&mut self, place: (u32, u32), group: u32) {
        let batch = u64::from(self.shape.batch);
        let tries = if batch > 1 { vec![batch, 1] } else { vec![1] };
        for nr_pages in tries {
            let Some((refuser, resource)) = self.refuser(group, nr_pages) else {
                self.member(group).owned += 1;
                self.member(group).singles += u64::from(nr_pages < batch);
                self.stock(place, group, nr_pages - 1);
                return;
            };
            self.member(refuser).failcnt[resource] += 1;
        }
        self.member(group).owned += 1;
        self.member(group).forced += 1;
        for at in self.lineage(group) {
            self.member(at).overrun = true;
        }
    }

    fn refuser(&self, group: u32, nr_pages: u64) -> Option<(u32, usize)> {
        let resources = if self.shape.memsw { 0..2 } else { 0..1 };
        let mut pairs = resources.flat_map(|resource| {
            self.lineage(group).into_iter().map(move |group| (group, resource))
        });
        pairs.find(|&(at, resource)| self.usage(at) + nr_pages > self.groups[&at].limits[resource])
    }

    fn member(&mut self, group: u32) -> &mut Group {
        self.groups.get_mut(&group).expect("a registered cgroup")
    }

    fn stock(&mut self, place: (u32, u32), group: u32, nr_pages: u64) {
        self.stocks.remove(&place);
        if nr_pages > 0 {
            self.stocks.insert(place, (group, nr_pages));
        }
    }

    fn give_back(&mut self, place: (u32, u32)) -> u64 {
        let Some((group, nr_pages)) = self.stocks.remove(&place) else { return 0 };
        if !self.is_open(group) {
            self.member(group).orphaned += nr_pages;
            self.orphaned += nr_pages;
        }
        nr_pages
    }

    /// Drains a CPU of what is stocked below `subtree`, or of everything.
    pub fn drain(&mut self, cpu: u32, subtree: Option<u32>) -> u64 {
        let is_meant = |group: u32| match subtree {
            Some(top) => self.is_open(group) && self.lineage(group).contains(&top),
            None => true,
        };
        let meant = self.stocks.iter().filter(|(at, stock)| at.0 == cpu && is_meant(stock.0));
        let places: Vec<_> = meant.map(|(&place, _)| place).collect();
        places.into_iter().map(|place| self.give_back(place)).sum()
    }

    /// False if the usage is in the way.
    pub fn set_limit(&mut self, group: u32, resource: usize, nr_pages: u64) -> bool {
        let is_counted = resource == 0 || self.shape.memsw;
        if is_counted && self.usage(group) > nr_pages {
            return false;
        }
        let member = self.member(group);
        member.limits[resource] = nr_pages;
        member.highest_limits[resource] = member.highest_limits[resource].max(nr_pages);
        true
    }

    pub fn register(&mut self, group: u32, parent: Option<u32>, limit: u64) {
        let limits = [limit, u64::MAX];
        let member = Group {
            parent,
            open: true,
            owned: 0,
            orphaned: 0,
            limits,
            highest_limits: limits,
            failcnt: [0; 2],
            peak: 0,
            faults: 0,
            misses: 0,
            singles: 0,
            forced: 0,
            overrun: false,
        };
        assert!(self.groups.insert(group, member).is_none());
    }

    /// False if a cgroup below is in the way.
    pub fn close(&mut self, group: u32) -> bool {
        let is_leaf = self.below(group).count() == 1;
        if is_leaf {
            self.member(group).open = false;
        }
        is_leaf
    }

    /// Gives the stock of a closed cgroup on one CPU back.
    pub fn evict(&mut self, cpu: u32, group: u32) -> u64 {
        let place = (cpu, self.slot(group));
        match self.stocks.get(&place) {
            Some(&(cached, nr_pages)) if cached == group => {
                self.stocks.remove(&place);
                nr_pages
            }
            _ => 0,
        }
    }

    pub fn release(&mut self, group: u32) {
        self.groups.remove(&group);
    }
}
