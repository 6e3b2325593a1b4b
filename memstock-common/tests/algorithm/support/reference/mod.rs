//! A reference implementation: memstock as a sequential, slow and obvious program that keeps no counters.
//!
//! It knows the owner of each page and what each CPU holds, and computes everything else each time it is asked. It
//! shares no code with what it is compared with.

mod drain;
mod file;
mod huge;
mod pages;

use std::collections::BTreeMap;

use crate::support::Shape;

/// One registered cgroup.
pub struct Group {
    pub parent: Option<u32>,
    /// False from close to release.
    pub open: bool,
    /// Memory, memory+swap.
    pub limits: [u64; 2],
    pub highest_limits: [u64; 2],
    pub failcnt: [u64; 2],
    pub peak: u64,
    /// The highest need: with stocked pages, and of owned pages only.
    pub most_charged: u64,
    pub most_owned: u64,
    /// Whether the usage has not changed since then, so that the last charge can still become page cache; and how many
    /// pages have.
    pub unjudged: bool,
    pub cached: u64,
    pub faults: u64,
    /// Pages charged on allocation.
    pub from_stock: u64,
    pub missed: u64,
    pub singles: u64,
    pub forced: u64,
    /// By how much huge pages may exceed the limits.
    pub huge: u64,
    /// A page below was forced in.
    pub overrun: bool,
}

/// One page with an owner.
#[derive(Clone, Copy, Default)]
pub struct Page {
    pub group: u32,
    pub unconfirmed: bool,
    /// It is free, but its free was not seen.
    pub stale: bool,
    /// It is page cache that can be reclaimed.
    pub file: bool,
}

/// What one slot of a CPU has stocked.
#[derive(Clone, Copy, Default)]
pub struct Stock {
    /// The cached cgroup, even if nothing is left.
    pub group: Option<u32>,
    pub pending: u64,
    /// Those of them that were charged for their fault.
    pub missed: u64,
    pub left: u64,
}

impl Stock {
    pub fn charged(&self) -> u64 {
        self.pending + self.left
    }
}

/// The counts of one slot.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Tally {
    pub faults: u64,
    pub from_stock: u64,
    pub missed: u64,
    pub refills: u64,
    pub drains: u64,
    pub charges: u64,
    pub uncharges: u64,
}

/// Slots by CPU and number.
pub type Place = (u32, u32);

pub struct Reference {
    pub shape: Shape,
    pub groups: BTreeMap<u32, Group>,
    /// By page frame number.
    pub pages: BTreeMap<u64, Page>,
    pub stocks: BTreeMap<Place, Stock>,
    /// Freed pages on their way to the counters: cgroup and pages.
    pub uncharging: BTreeMap<Place, (u32, u64)>,
    /// Page cache changes that are yet to be reported: cgroup and pages.
    pub untold: BTreeMap<Place, (u32, i64)>,
    pub tallies: BTreeMap<Place, Tally>,
    pub healed: u64,
    pub outside: u64,
    pub mixed: u64,
    /// Pages charged on allocation, by CPU and cgroup, and by slot.
    pub charged: BTreeMap<(u32, u32), u64>,
    pub charged_in: BTreeMap<Place, u64>,
    /// How often a decrease of page cache was reported, and how often a page's new frame had an owner.
    pub gone: u64,
    pub displaced: u64,
    /// The cgroup that the page or block in progress is charged to, and how much of it is charged.
    hand: Option<(u32, u64)>,
}

impl Reference {
    pub fn new(shape: Shape) -> Self {
        let places: Vec<_> =
            (0..shape.cpus).flat_map(|cpu| (0..shape.slots).map(move |slot| (cpu, slot))).collect();
        Self {
            shape,
            groups: BTreeMap::new(),
            pages: BTreeMap::new(),
            stocks: places.iter().map(|&place| (place, Stock::default())).collect(),
            uncharging: BTreeMap::new(),
            untold: BTreeMap::new(),
            tallies: places.iter().map(|&place| (place, Tally::default())).collect(),
            healed: 0,
            outside: 0,
            mixed: 0,
            charged: BTreeMap::new(),
            charged_in: BTreeMap::new(),
            gone: 0,
            displaced: 0,
            hand: None,
        }
    }

    /// The cgroup and its ancestors.
    pub fn lineage(&self, group: u32) -> Vec<u32> {
        std::iter::successors(Some(group), |at| self.groups[at].parent).collect()
    }

    fn is_below(&self, group: u32, ancestor: u32) -> bool {
        self.lineage(group).contains(&ancestor)
    }

    /// The law of conservation, for all cgroups.
    pub fn usages(&self) -> BTreeMap<u32, u64> {
        let mut charged = BTreeMap::<u32, u64>::new();
        let mut charge = |group: u32, nr_pages: u64| *charged.entry(group).or_default() += nr_pages;
        self.pages.values().for_each(|page| charge(page.group, 1));
        self.uncharging.values().chain(&self.hand).for_each(|batch| charge(batch.0, batch.1));
        for stock in self.stocks.values().filter(|stock| stock.charged() > 0) {
            charge(stock.group.expect("stocked for somebody"), stock.charged());
        }
        let mut usages: BTreeMap<_, u64> = self.groups.keys().map(|&group| (group, 0)).collect();
        for (group, nr_pages) in charged {
            for at in self.lineage(group) {
                *usages.entry(at).or_default() += nr_pages;
            }
        }
        usages
    }

    pub fn usage(&self, group: u32) -> u64 {
        self.usages()[&group]
    }

    pub fn is_open(&self, group: u32) -> bool {
        self.groups.get(&group).is_some_and(|group| group.open)
    }

    /// The cgroup to which a task of this cgroup is charged.
    fn charged_to(&self, group: u32) -> Option<u32> {
        let lineage = self.groups.get(&group).map(|_| self.lineage(group));
        lineage.unwrap_or_default().into_iter().find(|&at| self.is_open(at))
    }

    fn place(&self, cpu: u32, group: u32) -> Place {
        (cpu, (group + 1) % self.shape.slots)
    }

    fn member(&mut self, group: u32) -> &mut Group {
        self.groups.get_mut(&group).expect("a registered cgroup")
    }

    fn stock(&mut self, place: Place) -> &mut Stock {
        self.stocks.get_mut(&place).expect("a slot")
    }

    fn tally(&mut self, place: Place) -> &mut Tally {
        self.tallies.get_mut(&place).expect("a slot")
    }

    pub fn fault(&mut self, cpu: u32, task: u32) {
        let Some(group) = self.charged_to(task) else { return };
        let place = self.place(cpu, group);
        self.member(group).faults += 1;
        self.tally(place).faults += 1;
        let stock = self.stock(place);
        if stock.group == Some(group) && stock.charged() > 0 {
            stock.left -= 1 - stock.pending;
            stock.pending = 1;
            return;
        }
        let (nr_pages, missed) = self.obtain(place, group, 1);
        self.refill(place, group, nr_pages - 1);
        let stock = self.stock(place);
        (stock.pending, stock.missed) = (1, missed);
        self.hand = None;
    }

    /// Takes what a block needs: the pending page, stocked pages, and what has to be charged.
    fn commit(&mut self, cpu: u32, group: u32, nr_pages: u64) {
        let place = self.place(cpu, group);
        let stock = self.stock(place);
        let (mut taken, mut missed) = (0, 0);
        if stock.group == Some(group) {
            taken = nr_pages.min(stock.charged());
            stock.left -= taken - taken.min(stock.pending);
            stock.pending -= taken.min(stock.pending);
            if stock.pending == 0 {
                missed = std::mem::take(&mut stock.missed);
            }
        }
        self.hand = Some((group, taken));
        let missing = nr_pages - taken;
        if missing > 0 {
            let (obtained, charged) = self.obtain(place, group, missing);
            missed += charged;
            if obtained > missing {
                self.refill(place, group, obtained - missing);
            }
        }
        self.hand = Some((group, nr_pages));
        let tally = self.tally(place);
        tally.missed += missed;
        tally.from_stock += nr_pages - missed;
        let member = self.member(group);
        member.missed += missed;
        member.from_stock += nr_pages - missed;
    }

    fn refill(&mut self, place: Place, group: u32, left: u64) {
        assert!(left < self.shape.batch.into(), "a reference that overfills a stock is wrong");
        *self.stock(place) = Stock { group: Some(group), left, ..Stock::default() };
        self.tally(place).refills += 1;
    }

    /// Takes freed pages into `hand`, and charges what is missing. Returns how many it took, and how many of those
    /// needed are new.
    fn obtain(&mut self, place: Place, group: u32, needed: u64) -> (u64, u64) {
        if self.stock(place).group != Some(group) {
            self.drain_stock(place);
            *self.stock(place) = Stock::default();
        }
        let held = self.hand.map_or(0, |hand| hand.1);
        let mut obtained = 0;
        if self.uncharging.get(&place).is_some_and(|freed| freed.0 == group) {
            obtained = self.uncharging.remove(&place).map_or(0, |freed| freed.1);
        }
        self.hand = Some((group, held + obtained));
        let missing = needed.saturating_sub(obtained);
        if missing > 0 {
            self.tally(place).charges += 1;
            obtained += self.charge(group, missing);
        }
        (obtained, missing)
    }

    fn charge(&mut self, group: u32, needed: u64) -> u64 {
        self.forget_huge();
        let batch = needed.max(self.shape.batch.into());
        let tries = if batch > needed { vec![batch, needed] } else { vec![needed] };
        for nr_pages in tries {
            let Some((refuser, resource)) = self.refuser(group, nr_pages) else {
                self.member(group).singles += u64::from(nr_pages < batch);
                self.charge_forced(group, nr_pages);
                return nr_pages;
            };
            self.member(refuser).failcnt[resource] += 1;
        }
        self.member(group).forced += needed;
        for at in self.lineage(group) {
            self.member(at).overrun = true;
        }
        if needed > 1 {
            if let Some((refuser, resource)) = self.refuser(group, 1) {
                self.member(refuser).failcnt[resource] += 1;
            } else {
                self.charge_forced(group, 1);
                self.charge_forced(group, needed - 1);
                self.allow_huge(group, needed - 1);
                return needed;
            }
        }
        self.charge_forced(group, needed);
        needed
    }

    fn charge_forced(&mut self, group: u32, nr_pages: u64) {
        for at in self.lineage(group) {
            self.member(at).unjudged = false;
        }
        let held = self.hand.map_or(0, |hand| hand.1);
        self.hand = Some((group, held + nr_pages));
        let usages = self.usages();
        for at in self.lineage(group) {
            let member = self.member(at);
            member.peak = member.peak.max(usages[&at]);
        }
        self.observe();
    }

    fn refuser(&self, group: u32, nr_pages: u64) -> Option<(u32, usize)> {
        let usages = self.usages();
        let resources = if self.shape.memsw { 0..2 } else { 0..1 };
        let mut pairs = resources.flat_map(|resource| {
            self.lineage(group).into_iter().map(move |group| (group, resource))
        });
        pairs.find(|&(at, resource)| {
            let (usage, group) = (usages[&at], &self.groups[&at]);
            let limit = group.limits[resource];
            let allowed = if usage > limit { limit.saturating_add(group.huge) } else { limit };
            usage + nr_pages > allowed
        })
    }

    /// Takes back pages of a cgroup that are freed on a CPU.
    fn uncharge(&mut self, cpu: u32, group: u32, nr_pages: u64) {
        let place = self.place(cpu, group);
        let batch = u64::from(self.shape.batch);
        let mut rest = nr_pages;
        let stock = self.stock(place);
        if stock.group == Some(group) {
            let back = rest.min(batch - stock.charged());
            stock.left += back;
            rest -= back;
        }
        if rest == 0 {
            return;
        }
        match self.uncharging.remove(&place) {
            Some((waiting, nr_pages)) if waiting == group => rest += nr_pages,
            Some(_) => self.tally(place).uncharges += 1,
            None => {}
        }
        if rest < batch {
            self.uncharging.insert(place, (group, rest));
        } else {
            self.tally(place).uncharges += 1;
        }
    }
}
