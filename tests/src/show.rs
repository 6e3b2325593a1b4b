//! The JSON of `memstock show` and `memstock drain`, as a test reads it.
//!
//! Every key of the contract is a field here, so that a key that goes missing fails every test.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::PAGE;

/// One sample of a running engine.
#[derive(Clone, Debug, Deserialize)]
pub struct Show {
    /// One entry a CPU, offline ones included.
    pub cpus: Vec<Cpu>,
    /// The tracked cgroups.
    pub cgroups: Vec<Cgroup>,
    /// Pages charged at once.
    pub batch: u64,
    /// What was lost, merged or done the long way round.
    pub loss: Loss,
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
    /// Faults served from the stock.
    pub hits: u64,
    /// Faults that were not.
    pub misses: u64,
    /// Batches put into the stock.
    pub refills: u64,
    /// Times the stock was given back.
    pub drains: u64,
}

/// One slot of a CPU's stock.
#[derive(Clone, Debug, Deserialize)]
pub struct Slot {
    /// Path of the cgroup it is cached for.
    pub cgroup: Option<String>,
    /// Id of that cgroup.
    pub cgroup_id: Option<u64>,
    /// Pages in it.
    pub nr_pages: u64,
}

/// One tracked cgroup.
#[derive(Clone, Debug, Deserialize)]
pub struct Cgroup {
    /// Path in the hierarchy.
    pub path: String,
    /// cgroup v2 id.
    pub id: u64,
    /// Id of the nearest tracked ancestor.
    pub parent_id: Option<u64>,
    /// Memory.
    pub memory: Counter,
    /// Memory and swap.
    pub memsw: Counter,
    /// Bytes in stocks.
    pub stocked: u64,
    /// Faults charged.
    pub faults: u64,
    /// Faults served from a stock.
    pub hits: u64,
    /// Faults that were not.
    pub misses: u64,
    /// Misses for which only one page was charged.
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

/// The loss counters.
#[derive(Clone, Debug, Deserialize)]
pub struct Loss {
    /// Dropped for want of room in the ring.
    pub events_lost: u64,
    /// Merged into an earlier one.
    pub events_merged: u64,
    /// Misses served in place.
    pub tail_calls_failed: u64,
    /// Pages of a batch that found no room.
    pub refills_returned: u64,
    /// Displaced while their cgroup was being unregistered.
    pub orphaned_pages: u64,
    /// A defect if not 0.
    pub counters_missing: u64,
    /// Runs of a probe that the kernel skipped.
    pub recursion_misses: u64,
}

impl Show {
    /// Reads a sample.
    ///
    /// # Errors
    /// When the JSON is not what was promised.
    pub fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).with_context(|| format!("memstock show --json: {json}"))
    }

    /// The cgroup at `path`.
    ///
    /// # Errors
    /// When it is not tracked.
    pub fn cgroup(&self, path: &str) -> Result<&Cgroup> {
        let found = self.cgroups.iter().find(|cgroup| cgroup.path == path);
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

    /// Pages in all stocks.
    pub fn stocked_pages(&self) -> u64 {
        self.cpus.iter().flat_map(|cpu| &cpu.slots).map(|slot| slot.nr_pages).sum()
    }

    /// The law that nothing may break: what a cgroup has charged is what it and its descendants
    /// have faulted in, page by page, and what is stocked for them.
    ///
    /// Exact when no task of theirs runs. In this version a fault is a charge of one page and
    /// nothing is uncharged.
    ///
    /// # Errors
    /// Names the cgroup that breaks it.
    pub fn check_conservation(&self) -> Result<()> {
        for cgroup in &self.cgroups {
            let below = format!("{}/", cgroup.path);
            let family =
                self.cgroups.iter().filter(|c| c.path == cgroup.path || c.path.starts_with(&below));
            let expected: u64 = family.map(|c| c.faults * PAGE + c.stocked).sum();
            ensure!(
                cgroup.memory.usage == expected,
                "{}: usage {} is not the {expected} bytes faulted in and stocked: {self:#?}",
                cgroup.path,
                cgroup.memory.usage,
            );
            let in_slots: u64 = self
                .cpus
                .iter()
                .flat_map(|cpu| &cpu.slots)
                .filter(|slot| slot.cgroup_id == Some(cgroup.id))
                .map(|slot| slot.nr_pages * PAGE)
                .sum();
            ensure!(
                cgroup.stocked == in_slots,
                "{}: {} bytes stocked, but {in_slots} in the CPUs' slots: {self:#?}",
                cgroup.path,
                cgroup.stocked,
            );
            ensure!(
                cgroup.hits + cgroup.misses == cgroup.faults,
                "{}: hits and misses are not the faults: {cgroup:#?}",
                cgroup.path,
            );
        }
        ensure!(
            self.loss.orphaned_pages == 0 && self.loss.counters_missing == 0,
            "a defect is counted: {:#?}",
            self.loss,
        );
        Ok(())
    }
}

/// What a drain gave back.
#[derive(Clone, Debug, Deserialize)]
pub struct Drained {
    /// By CPU.
    pub cpus: Vec<DrainedCpu>,
    /// In all.
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
    /// Reads the JSON of a drain and checks its sum.
    ///
    /// # Errors
    /// When it is not what was promised.
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
