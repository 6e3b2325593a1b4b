//! The JSON of `memstock show` and `memstock drain`, as a test reads it.
//!
//! Every documented key is a field, so a missing key fails every test.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::PAGE;

/// One sample of a running engine.
#[derive(Clone, Debug, Deserialize)]
pub struct Show {
    /// One entry per CPU, offline ones included.
    pub cpus: Vec<Cpu>,
    /// The tracked and the dying cgroups.
    pub cgroups: Vec<Cgroup>,
    /// Pages in a batch.
    pub batch: u64,
    /// Counters of losses, merges and slow paths.
    pub loss: Loss,
    /// Why the daemon is degraded.
    pub degraded: Vec<String>,
}

/// One CPU.
#[derive(Clone, Debug, Deserialize)]
pub struct Cpu {
    /// Its number.
    pub cpu: u32,
    /// Whether it is online.
    pub online: bool,
    /// Its stock.
    pub slots: Vec<Slot>,
    /// Page faults of tracked cgroups, if they are counted.
    pub faults: Option<u64>,
    /// Pages charged at their allocation.
    pub charged_pages: u64,
    /// Of those, pages that came from a stock.
    pub from_stock_pages: u64,
    /// Batches put into the stock.
    pub refills: u64,
    /// Times its stock was drained.
    pub drains: u64,
    /// Charges on the shared counters.
    pub charges: u64,
    /// Uncharges on the shared counters.
    pub uncharges: u64,
}

/// One slot of a CPU's stock.
#[derive(Clone, Debug, Deserialize)]
pub struct Slot {
    /// Path of the cgroup whose pages it holds.
    pub cgroup: Option<String>,
    /// Id of that cgroup.
    pub cgroup_id: Option<u64>,
    /// Pages in it, pending ones included.
    pub nr_pages: u64,
    /// Of those, pages that a fault took and no allocation has claimed yet.
    pub pending: u64,
    /// Id of the cgroup of the uncharge batch.
    pub uncharge_cgroup_id: Option<u64>,
    /// Pages in the uncharge batch.
    pub uncharge_pages: u64,
}

/// One tracked or dying cgroup.
#[derive(Clone, Debug, Deserialize)]
pub struct Cgroup {
    /// Path in the hierarchy; `None` for a removed cgroup.
    pub path: Option<String>,
    /// cgroup v2 id.
    pub id: u64,
    /// Id of the nearest tracked ancestor.
    pub parent_id: Option<u64>,
    /// Whether it was removed and waits for its pages to be freed.
    pub dying: bool,
    /// Memory.
    pub memory: Memory,
    /// Memory and swap.
    pub memsw: Counter,
    /// Bytes in stocks and uncharge batches.
    pub stocked: u64,
    /// Page faults, if they are counted.
    pub faults: Option<u64>,
    /// Pages charged at their allocation.
    pub charged_pages: u64,
    /// Of those, pages that came from a stock.
    pub from_stock_pages: u64,
    /// Charges of only the pages needed, since a batch did not fit.
    pub singles: u64,
    /// Pages charged over a limit.
    pub forced: u64,
}

/// One resource of a cgroup, in bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct Counter {
    /// Charged now.
    pub usage: u64,
    /// Hard limit.
    pub limit: Option<u64>,
    /// Highest usage.
    pub watermark: u64,
    /// Refused charges.
    pub failcnt: u64,
}

/// The memory of a cgroup, in bytes.
#[derive(Clone, Debug, Deserialize)]
pub struct Memory {
    /// Usage, limit, watermark and failcnt.
    #[serde(flatten)]
    pub counter: Counter,
    /// Page cache.
    pub file: u64,
    /// What the kernel could not reclaim without swap.
    pub needed: u64,
    /// Highest `needed`.
    pub needed_watermark: u64,
    /// Page cache above the limit.
    pub file_over_limit: u64,
}

impl std::ops::Deref for Memory {
    type Target = Counter;

    fn deref(&self) -> &Counter {
        &self.counter
    }
}

/// The loss counters.
#[derive(Clone, Debug, Deserialize)]
pub struct Loss {
    /// Events dropped because the ring buffer was full.
    pub events_lost: u64,
    /// Events merged into an earlier one.
    pub events_merged: u64,
    /// Reclaim events merged into an earlier one.
    pub reclaims_merged: u64,
    /// Misses left to the allocation.
    pub tail_calls_failed: u64,
    /// Pages of a batch that found no room in the stock.
    pub refills_returned: u64,
    /// A defect if not 0.
    pub counters_missing: u64,
    /// Pages uncharged after their free was lost.
    pub healed: u64,
    /// Pages outside the owner map.
    pub pages_outside: u64,
    /// Pages that the kernel moved without memstock seeing it.
    pub moved_unseen: u64,
    /// Pages of blocks with too many owners.
    pub blocks_mixed: u64,
    /// Runs of a probe that the kernel skipped.
    pub recursion_misses: u64,
}

impl Show {
    /// Parses a sample.
    ///
    /// # Errors
    /// When the JSON does not have this form.
    pub fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).with_context(|| format!("memstock show --json: {json}"))
    }

    /// The cgroup at `path`.
    ///
    /// # Errors
    /// When it is not tracked.
    pub fn cgroup(&self, path: &str) -> Result<&Cgroup> {
        let found = self.cgroups.iter().find(|cgroup| cgroup.path.as_deref() == Some(path));
        found.with_context(|| format!("{path} is not among the tracked {:?}", self.cgroups))
    }

    /// The CPU `cpu`.
    ///
    /// # Errors
    /// When it is not shown.
    pub fn cpu(&self, cpu: u32) -> Result<&Cpu> {
        let found = self.cpus.iter().find(|entry| entry.cpu == cpu);
        found.with_context(|| format!("no CPU {cpu} is shown"))
    }

    /// Pages in all stocks and uncharge batches.
    pub fn stocked_pages(&self) -> u64 {
        let slots = self.cpus.iter().flat_map(|cpu| &cpu.slots);
        slots.map(|slot| slot.nr_pages + slot.uncharge_pages).sum()
    }

    /// Checks that a sample of a tree at rest is consistent: the CPUs' slots hold what is stocked for each cgroup, a
    /// parent has at least what its children have, usage = needed + page cache + stocked, and no defect is counted.
    /// (`memstock audit` compares usage with the pages.)
    ///
    /// Call it when no task of these cgroups runs.
    ///
    /// # Errors
    /// Names the cgroup that is inconsistent.
    pub fn check(&self) -> Result<()> {
        for cgroup in &self.cgroups {
            let slots = self.cpus.iter().flat_map(|cpu| &cpu.slots);
            let in_slots: u64 = slots.map(|slot| slot.pages_of(cgroup.id) * PAGE).sum();
            ensure!(
                cgroup.stocked == in_slots,
                "{}: {} bytes stocked, but {in_slots} in the CPUs' slots: {self:#?}",
                cgroup.name(),
                cgroup.stocked,
            );
            let children = self.cgroups.iter().filter(|child| child.parent_id == Some(cgroup.id));
            let below: u64 = children.map(|child| child.memory.usage).sum();
            ensure!(
                cgroup.memory.usage >= below + cgroup.stocked,
                "{}: less than what is below it: {self:#?}",
                cgroup.name(),
            );
            let memory = &cgroup.memory;
            let unused = self.stocked_below(cgroup);
            ensure!(
                memory.needed + memory.file + unused == memory.usage
                    && memory.needed <= memory.needed_watermark,
                "{}: usage is not what is needed, page cache and {unused} stocked: {cgroup:#?}",
                cgroup.name(),
            );
            ensure!(cgroup.from_stock_pages <= cgroup.charged_pages, "{cgroup:#?}");
        }
        ensure!(
            [self.loss.counters_missing, self.loss.pages_outside, self.loss.blocks_mixed] == [0; 3],
            "a defect is counted: {:#?}",
            self.loss,
        );
        Ok(())
    }
}

impl Show {
    /// Bytes stocked for a cgroup and those below it.
    fn stocked_below(&self, cgroup: &Cgroup) -> u64 {
        let children = self.cgroups.iter().filter(|child| child.parent_id == Some(cgroup.id));
        cgroup.stocked + children.map(|child| self.stocked_below(child)).sum::<u64>()
    }
}

impl Slot {
    /// Pages in this slot that are charged to the cgroup `id`.
    pub fn pages_of(&self, id: u64) -> u64 {
        let stocked = if self.cgroup_id == Some(id) { self.nr_pages } else { 0 };
        stocked + if self.uncharge_cgroup_id == Some(id) { self.uncharge_pages } else { 0 }
    }
}

impl Cpu {
    /// Pages charged that did not come from a stock.
    pub fn missed(&self) -> u64 {
        self.charged_pages - self.from_stock_pages
    }
}

impl Cgroup {
    /// Its counters, and what identifies it.
    pub fn figures(&self) -> [u64; 12] {
        let Self { id, parent_id, memory, memsw, faults, singles, forced, .. } = self;
        let (parent, limit) = (parent_id.unwrap_or(0), memory.limit.unwrap_or(0));
        let counted = [memory.usage, memory.watermark, memory.failcnt, memsw.usage];
        let [usage, watermark, failcnt, memsw] = counted;
        let (charged, from_stock) = (self.charged_pages, self.from_stock_pages);
        [
            *id,
            parent,
            usage,
            watermark,
            failcnt,
            limit,
            memsw,
            faults.unwrap_or(0),
            charged,
            from_stock,
            *singles,
            *forced,
        ]
    }

    /// Page faults. Where the kernel has no tracepoints for them, the pages charged: in what the tests do, one for each.
    pub fn faults(&self) -> u64 {
        self.faults.unwrap_or(self.charged_pages)
    }

    /// Pages charged that did not come from a stock.
    pub fn missed(&self) -> u64 {
        self.charged_pages - self.from_stock_pages
    }

    /// What to call it in a message.
    pub fn name(&self) -> &str {
        self.path.as_deref().unwrap_or("a removed cgroup")
    }

    /// Pages in use: charged and not stocked. Includes those of tracked children, and what is stocked for them.
    pub fn used_pages(&self) -> u64 {
        (self.memory.usage - self.stocked) / PAGE
    }
}

/// What a drain gave back.
#[derive(Clone, Debug, Deserialize)]
pub struct Drained {
    /// By CPU.
    pub cpus: Vec<DrainedCpu>,
    /// The total.
    pub nr_pages: u64,
}

/// What one CPU gave back.
#[derive(Clone, Debug, Deserialize)]
pub struct DrainedCpu {
    /// Its number.
    pub cpu: u32,
    /// Pages.
    pub nr_pages: u64,
}

impl Drained {
    /// Parses the JSON of a drain and checks its sum.
    ///
    /// # Errors
    /// When the JSON does not have this form, or the sum is wrong.
    pub fn parse(json: &str) -> Result<Self> {
        let drained: Self =
            serde_json::from_str(json).with_context(|| format!("memstock drain --json: {json}"))?;
        let sum: u64 = drained.cpus.iter().map(|cpu| cpu.nr_pages).sum();
        ensure!(sum == drained.nr_pages, "the CPUs of a drain do not add up: {drained:?}");
        Ok(drained)
    }

    /// What `cpu` gave back; 0 when it is not listed.
    pub fn from_cpu(&self, cpu: u32) -> u64 {
        self.cpus.iter().find(|entry| entry.cpu == cpu).map_or(0, |entry| entry.nr_pages)
    }
}
