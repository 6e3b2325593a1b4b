//! What an engine holds at one moment, in the terms that people see. Built by `sample`, rendered by `show`; knows
//! neither maps nor formats.

pub mod kernel;
pub mod ratio;
pub mod size;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memstock_common::stat::{CgroupStat, CpuStat, MemoryStat, PageCounterStat, SlotStat, Stat};

use crate::host::workload::{Resolver, Workload};

/// One reading of a running engine. Sizes are in pages.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Pages charged at once on a miss.
    pub batch: u32,
    /// Whether memory+swap is charged; without it, `memsw` repeats the memory.
    pub has_memsw: bool,
    /// Every possible CPU.
    pub cpus: Vec<Cpu>,
    /// The dying cgroups, then the tracked ones, parents before children.
    pub cgroups: Vec<Cgroup>,
    /// Everything that was lost, skipped or merged.
    pub loss: Vec<(Stat, u64)>,
    /// Why the daemon is degraded, one line for each reason; empty when it is not, or was not asked.
    pub degraded: Vec<String>,
}

/// One CPU.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    /// Its number.
    pub cpu: u32,
    /// Whether it is online.
    pub online: bool,
    /// Its stock.
    pub slots: Vec<Slot>,
    /// Indexed by [`CpuStat`]; none if unknown.
    pub stats: [Figure; CpuStat::COUNT as usize],
}

/// One slot of a CPU's stock.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// The cgroup whose pages it holds, if any.
    pub cgroup: Option<Name>,
    /// Pages stocked, pending ones included.
    pub nr_pages: u64,
    /// Of these, the pages that a fault has taken and no allocation has claimed.
    pub pending: u64,
    /// The cgroup that the uncharge batch is for, if any.
    pub uncharge_cgroup: Option<Name>,
    /// Pages in the uncharge batch.
    pub uncharge_pages: u64,
}

/// What identifies a cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// cgroup v2 id.
    pub id: u64,
    /// Path in the hierarchy; `None` once the cgroup is removed.
    pub path: Option<Arc<Path>>,
    /// What people call it, if known; filled in by [`Sample::ask_names`].
    pub workload: Option<Box<Workload>>,
}

impl Name {
    /// Makes a name without the one that people use.
    pub fn new(id: u64, path: Option<PathBuf>) -> Self {
        Self { id, path: path.map(Into::into), workload: None }
    }
}

/// One tracked cgroup.
#[derive(Clone, Debug, Default)]
pub struct Cgroup {
    /// The cgroup.
    pub name: Name,
    /// The nearest tracked ancestor.
    pub parent_id: Option<u64>,
    /// Whether the cgroup was removed and only waits for its pages to be freed.
    pub is_dying: bool,
    /// Memory.
    pub memory: PageCounter,
    /// The parts of the memory; indexed by [`MemoryStat`].
    pub parts: [u64; MemoryStat::COUNT as usize],
    /// Memory and swap together. Without swap accounting this equals the memory.
    pub memsw: PageCounter,
    /// Indexed by [`CgroupStat`]; none if unknown.
    pub stats: [Figure; CgroupStat::COUNT as usize],
}

/// Usage of one resource. Without a limit, that is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounter {
    /// Indexed by [`PageCounterStat`].
    pub stats: [Figure; PageCounterStat::COUNT as usize],
}

/// A number or none, in 8 bytes instead of the 16 of an `Option`: there are a dozen for each cgroup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Figure(u64);

impl Figure {
    /// The number, if there is one.
    pub fn get(self) -> Option<u64> {
        (self != Self::default()).then_some(self.0)
    }
}

impl Default for Figure {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

impl From<u64> for Figure {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl From<Option<u64>> for Figure {
    fn from(value: Option<u64>) -> Self {
        value.map(Self).unwrap_or_default()
    }
}

impl fmt::Debug for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Cpu {
    /// One of its statistics.
    pub fn get(&self, stat: CpuStat) -> Option<u64> {
        self.stats[stat as usize].get()
    }
}

impl Slot {
    /// One of its statistics.
    pub fn get(&self, stat: SlotStat) -> u64 {
        match stat {
            SlotStat::NrPages => self.nr_pages,
            SlotStat::Pending => self.pending,
            SlotStat::UnchargePages => self.uncharge_pages,
        }
    }
}

impl Cgroup {
    /// One of its statistics.
    pub fn get(&self, stat: CgroupStat) -> Option<u64> {
        self.stats[stat as usize].get()
    }

    /// One part of its memory.
    pub fn part(&self, stat: MemoryStat) -> u64 {
        self.parts[stat as usize]
    }
}

impl PageCounter {
    /// One of its statistics.
    pub fn get(&self, stat: PageCounterStat) -> Option<u64> {
        self.stats[stat as usize].get()
    }
}

impl Sample {
    /// The sum of a statistic over all CPUs, if it is known.
    pub fn all_cpus(&self, stat: CpuStat) -> Option<u64> {
        self.cpus.iter().map(|cpu| cpu.get(stat)).sum()
    }

    /// Finds out what people call the cgroups; cgroup v2 is mounted at `hierarchy`.
    pub fn ask_names(&mut self, hierarchy: &Path, resolver: &mut Resolver) {
        let paths =
            self.cgroups.iter().filter_map(|it| Some((it.name.id, it.name.path.as_deref()?)));
        let names = resolver.names(hierarchy, paths.clone().map(|(_, path)| path));
        if names.is_empty() {
            return;
        }
        let name = |(id, path)| Some((id, names.get(path)?.clone()));
        let names: HashMap<_, _> = paths.filter_map(name).collect();
        let of_slots = self.cpus.iter_mut().flat_map(|cpu| &mut cpu.slots);
        let of_slots = of_slots.flat_map(|slot| [&mut slot.cgroup, &mut slot.uncharge_cgroup]);
        let of_cgroups = self.cgroups.iter_mut().map(|cgroup| &mut cgroup.name);
        for name in of_slots.flatten().chain(of_cgroups) {
            name.workload = names.get(&name.id).cloned().map(Box::new);
        }
    }

    /// The ids of a cgroup and of all below it.
    pub fn ids_below(&self, id: u64) -> BTreeSet<u64> {
        let mut ids = BTreeSet::from([id]);
        // Dying cgroups have no path to sort by, so a child can come before its parent.
        loop {
            let before = ids.len();
            for cgroup in &self.cgroups {
                if cgroup.parent_id.is_some_and(|parent| ids.contains(&parent)) {
                    ids.insert(cgroup.name.id);
                }
            }
            if ids.len() == before {
                return ids;
            }
        }
    }

    /// Keeps only one cgroup and those below it.
    pub fn keep_below(&mut self, id: u64) {
        let ids = self.ids_below(id);
        self.cgroups.retain(|cgroup| ids.contains(&cgroup.name.id));
    }

    /// The sum of a statistic over all tracked cgroups, if it is known.
    pub fn all_cgroups(&self, stat: CgroupStat) -> Option<u64> {
        self.cgroups.iter().map(|cgroup| cgroup.get(stat)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dying_child_is_kept_though_it_comes_before_its_parent() {
        let cgroup = |id, parent_id| {
            let name = Name { id, ..Name::default() };
            Cgroup { name, parent_id, ..Cgroup::default() }
        };
        let cgroups =
            vec![cgroup(3, Some(2)), cgroup(1, None), cgroup(2, Some(1)), cgroup(4, None)];
        let mut sample = Sample { cgroups, ..Sample::default() };
        sample.keep_below(1);
        assert_eq!(
            sample.cgroups.iter().map(|cgroup| cgroup.name.id).collect::<Vec<_>>(),
            [3, 1, 2]
        );
    }
}
