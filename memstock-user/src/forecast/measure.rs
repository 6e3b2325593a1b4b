//! Computes the figures of a measured command from samples of an engine and from what the kernel says of the command;
//! averages them over runs. Must not read an engine: `sample` does.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use memstock_common::KernelCharges;
use memstock_common::stat::{
    CgroupStat, CommandStat, CpuStat, KernelStat, MemoryStat, PageCounterStat, Stat, Unit,
};

use crate::host::launch::Ended;
use crate::model::Sample;
use crate::model::ratio::hit_rate;

/// What a figure describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Scope {
    /// The cgroup that was made for the command, with those below it.
    Cgroup,
    /// The engine while the command ran; if it tracks nothing else, that is the command.
    Engine,
    /// The kernel's own memory controller, for the cgroup and those below it.
    Kernel,
    /// The process, as the kernel reports it to its parent.
    Process,
}

impl Scope {
    /// All scopes, in the order in which they are shown.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What is measured, in the order in which it is shown.
pub const FIGURES: [(Scope, Stat); 23] = [
    (Scope::Cgroup, CommandStat::Peak.stat()),
    (Scope::Cgroup, CommandStat::NeededPeak.stat()),
    (Scope::Cgroup, CommandStat::End.stat()),
    (Scope::Cgroup, CommandStat::Stranded.stat()),
    (Scope::Cgroup, CgroupStat::Faults.stat()),
    (Scope::Cgroup, CgroupStat::Charged.stat()),
    (Scope::Cgroup, CgroupStat::FromStock.stat()),
    (Scope::Cgroup, CommandStat::HitRate.stat()),
    (Scope::Cgroup, CgroupStat::Singles.stat()),
    (Scope::Cgroup, CgroupStat::Forced.stat()),
    (Scope::Cgroup, PageCounterStat::Failcnt.stat()),
    (Scope::Engine, CommandStat::SharedOperations.stat()),
    (Scope::Engine, CpuStat::Charges.stat()),
    (Scope::Engine, CpuStat::Uncharges.stat()),
    (Scope::Engine, CpuStat::Refills.stat()),
    (Scope::Engine, CpuStat::Drains.stat()),
    (Scope::Kernel, KernelStat::Charges.stat()),
    (Scope::Kernel, KernelStat::Charged.stat()),
    (Scope::Kernel, KernelStat::SharedOperations.stat()),
    (Scope::Process, CommandStat::WallTime.stat()),
    (Scope::Process, CommandStat::UserTime.stat()),
    (Scope::Process, CommandStat::SystemTime.stat()),
    (Scope::Process, CommandStat::MaxRss.stat()),
];

/// One run of a command.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The path of the cgroup that it ran in.
    pub cgroup: PathBuf,
    /// Whether the engine tracked nothing else.
    pub is_own_engine: bool,
    /// Pages charged at once on a miss.
    pub batch: u32,
    /// How the command ended.
    pub ended: Ended,
    /// In the order of [`FIGURES`], each in its unit; `None` if unknown.
    pub figures: [Option<f64>; FIGURES.len()],
    /// What was lost, skipped or merged meanwhile.
    pub loss: Vec<(Stat, u64)>,
}

/// What a command did to the engine.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The engine before the command started; `None` for one that was new then and tracks nothing else.
    pub before: Option<&'a Sample>,
    /// The engine after the command ended.
    pub after: &'a Sample,
    /// The id of the cgroup that was made for it.
    pub cgroup_id: u64,
    /// How the command ended.
    pub ended: Ended,
    /// What the kernel's own controller did for it, if that was watched.
    pub kernel: Option<KernelCharges<u64>>,
}

impl Work<'_> {
    /// The figures of a run; a page has `page_size` bytes.
    ///
    /// # Errors
    /// The cgroup is not tracked any more.
    pub fn figures(&self, page_size: u64) -> Result<[Option<f64>; FIGURES.len()]> {
        let ids = self.after.ids_below(self.cgroup_id);
        let cgroups = self.after.cgroups.iter();
        let subtree: Vec<_> = cgroups.filter(|cgroup| ids.contains(&cgroup.name.id)).collect();
        let top = subtree.iter().find(|cgroup| cgroup.name.id == self.cgroup_id);
        let top = top.context("the cgroup was removed while COMMAND ran in it")?;
        let bytes = |nr_pages: Option<u64>| Some((nr_pages? * page_size) as f64);
        let count = |value: Option<u64>| Some(value? as f64);
        let of_memory = |stat| top.memory.get(stat);
        let below = |stat| -> Option<u64> { subtree.iter().map(|cgroup| cgroup.get(stat)).sum() };
        let [charges, uncharges, refills, drains] =
            [CpuStat::Charges, CpuStat::Uncharges, CpuStat::Refills, CpuStat::Drains]
                .map(|stat| self.since(stat));
        // Cgroups that COMMAND made and removed are counted only in the sums over the CPUs.
        let [faults, charged, from_stock] = match self.before {
            None => {
                [CpuStat::Faults, CpuStat::Charged, CpuStat::FromStock].map(|stat| self.since(stat))
            }
            Some(_) => [CgroupStat::Faults, CgroupStat::Charged, CgroupStat::FromStock].map(below),
        };
        Ok([
            bytes(of_memory(PageCounterStat::Watermark)),
            bytes(Some(top.part(MemoryStat::NeededWatermark))),
            bytes(of_memory(PageCounterStat::Usage)),
            bytes(below(CgroupStat::Stocked)),
            count(faults),
            count(charged),
            count(from_stock),
            count(from_stock).zip(count(charged)).and_then(|(part, whole)| hit_rate(part, whole)),
            count(below(CgroupStat::Singles)),
            count(below(CgroupStat::Forced)),
            count(of_memory(PageCounterStat::Failcnt)),
            count([charges, uncharges, drains].into_iter().sum()),
            count(charges),
            count(uncharges),
            count(refills),
            count(drains),
            self.kernel.map(|kernel| kernel.charges as f64),
            self.kernel.map(|kernel| (kernel.nr_pages * page_size) as f64),
            self.kernel.map(|kernel| kernel.shared_operations as f64),
            Some(self.ended.wall.as_secs_f64()),
            Some(self.ended.user.as_secs_f64()),
            Some(self.ended.system.as_secs_f64()),
            self.ended.max_rss.map(|bytes| bytes as f64),
        ])
    }

    /// What was lost, skipped or merged meanwhile.
    pub fn loss(&self) -> Vec<(Stat, u64)> {
        let before = |stat: Stat| {
            let losses = self.before.into_iter().flat_map(|sample| &sample.loss);
            losses.filter(|(lost, _)| *lost == stat).map(|&(_, count)| count).sum()
        };
        let after = self.after.loss.iter();
        after.map(|&(stat, count)| (stat, count.saturating_sub(before(stat)))).collect()
    }

    fn since(&self, stat: CpuStat) -> Option<u64> {
        let before = self.before.map_or(Some(0), |sample| sample.all_cpus(stat));
        Some(self.after.all_cpus(stat)?.saturating_sub(before?))
    }
}

/// A figure over all runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What it describes.
    pub scope: Scope,
    /// The statistic.
    pub stat: Stat,
    /// Its mean; `None` if unknown.
    pub mean: Option<f64>,
    /// Its standard deviation; `None` for a single run.
    pub deviation: Option<f64>,
}

/// The figures over `runs`.
pub fn summarize(runs: &[Measured]) -> Vec<Figure> {
    let figure = |(n, &(scope, stat)): (usize, &(Scope, Stat))| {
        let values: Vec<f64> = runs.iter().filter_map(|run| run.figures[n]).collect();
        Figure { scope, stat, mean: mean(&values), deviation: deviation(&values) }
    };
    FIGURES.iter().enumerate().map(figure).collect()
}

/// The sums of the losses over `runs`.
pub fn losses(runs: &[Measured]) -> Vec<(Stat, u64)> {
    let Some((first, rest)) = runs.split_first() else { return Vec::new() };
    let mut sums = first.loss.clone();
    for (sum, lost) in rest.iter().flat_map(|run| sums_of(&run.loss)) {
        if let Some((_, count)) = sums.get_mut(sum) {
            *count += lost;
        }
    }
    sums
}

/// Every engine reports the same losses in the same order.
fn sums_of(loss: &[(Stat, u64)]) -> impl Iterator<Item = (usize, u64)> {
    loss.iter().map(|&(_, count)| count).enumerate()
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation of a sample, with one degree of freedom less than there are values.
fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Whether figures of this unit are whole numbers in a single run.
pub const fn is_whole(unit: Unit) -> bool {
    matches!(unit, Unit::Bytes | Unit::Pages | Unit::Count)
}
