//! From maps to model: reads a running engine, with as many system calls as it has CPU slots, plus some for each cgroup
//! with children. `work` reads twice what must be exact.

mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Result;
use memstock_common::counter::limit_of;
use memstock_common::stat::{CgroupStat, CpuStat, MemoryStat, PageCounterStat, ProbeStat, Stat};
use memstock_common::{Counter, Loss, NO_INDEX, Stock, StockWord, index_of};

use crate::engine::needed::{InFlight, Need, in_flight, unused};
use crate::engine::{Engine, PerCpu};
use crate::host;
use crate::host::cgroup::CgroupMount;
use crate::model::{Cgroup, Cpu, Name, PageCounter, Sample, Slot};
use work::Work;

/// Reads the engine once.
///
/// # Errors
/// A map cannot be read.
pub fn sample(engine: &Engine, mount: &CgroupMount) -> Result<Sample> {
    let counters = engine.counters();
    let tracked = engine.tracked()?;
    let names = names(&counters, &tracked, mount);
    let stocks = stocks(engine)?;
    let unused = unused(stocks.iter().flatten().map(|(_, stock)| stock));
    let flights = in_flight(&counters, stocks.iter().flatten().map(|(_, stock)| stock));
    let indices: Vec<_> = counters.keys().copied().collect();
    let work = work::of(engine, &indices)?;
    let mut cgroups = Vec::with_capacity(counters.len());
    for (&index, counter) in &counters {
        let stocked = unused.get(&index).copied().unwrap_or_default();
        let work = work.get(&index).copied().unwrap_or_default();
        let flight = flights.get(&index).copied().unwrap_or_default();
        cgroups.push(Cgroup {
            name: names.get(&index).cloned().unwrap_or_default(),
            parent_id: names.get(&index_of(counter.parent as u32)).map(|parent| parent.id),
            is_dying: !tracked.contains(&index),
            parts: parts(counter, flight),
            ..cgroup(engine, counter, stocked, work)
        });
    }
    cgroups.sort_by(|a, b| (&a.name.path, a.name.id).cmp(&(&b.name.path, b.name.id)));
    Ok(Sample {
        degraded: Vec::new(),
        batch: engine.info().batch,
        has_memsw: engine.info().memsw == 1,
        cpus: cpus(engine, &stocks, &names)?,
        cgroups,
        loss: losses(engine)?,
    })
}

/// The names of cgroups, by counter index.
type Names = BTreeMap<u32, Name>;

/// Looks up names from the top down: one listing gives the names of all children of a cgroup. Cgroups that are not
/// direct children of a tracked one are looked up by id, which takes about ten times as long.
fn names(
    counters: &BTreeMap<u32, Counter<u64>>,
    tracked: &BTreeSet<u32>,
    mount: &CgroupMount,
) -> Names {
    // The id of a dying cgroup may have been reused.
    let unnamed = |(&index, counter): (&u32, &Counter<u64>)| (index, Name::new(counter.id, None));
    let mut names: Names = counters.iter().map(unnamed).collect();
    let mut below = BTreeMap::<u32, Vec<u32>>::new();
    for &index in tracked {
        if let Some(counter) = counters.get(&index) {
            let above = index_of(counter.parent as u32);
            let above = if tracked.contains(&above) { above } else { NO_INDEX };
            below.entry(above).or_default().push(index);
        }
    }
    let mut due = vec![(NO_INDEX, None::<PathBuf>)];
    while let Some((above, path)) = due.pop() {
        let Some(children) = below.remove(&above) else { continue };
        let known = path.as_deref().and_then(|path| mount.names_below(path).ok());
        for index in children {
            let Some(name) = names.get_mut(&index) else { continue };
            let listed = known.as_ref().and_then(|known| known.get(&name.id));
            let found = path.as_ref().zip(listed).map(|(path, name)| path.join(name));
            name.path = found.or_else(|| mount.path_of(name.id));
            due.push((index, name.path.clone()));
        }
    }
    names
}

/// Everything that was lost, skipped or merged, with its counts.
///
/// # Errors
/// A map cannot be read, or the kernel does not report it.
pub fn losses(engine: &Engine) -> Result<Vec<(Stat, u64)>> {
    let counted = Loss::ALL.iter().map(|&loss| Ok((loss.stat(), engine.loss(loss)?)));
    let skipped = ProbeStat::ALL.iter().map(|&stat| {
        let value = match stat {
            ProbeStat::RecursionMisses => engine.recursion_misses()?,
        };
        Ok((stat.stat(), value))
    });
    counted.chain(skipped).collect()
}

/// Every slot of every CPU; the outer index is the slot.
type Stocks = Vec<PerCpu<Stock<u64>>>;

fn stocks(engine: &Engine) -> Result<Stocks> {
    (0..engine.info().slots).map(|slot| engine.stocks(slot)).collect()
}

fn cpus(engine: &Engine, stocks: &Stocks, names: &Names) -> Result<Vec<Cpu>> {
    let online = host::cpus()?.online;
    let mut cpus = BTreeMap::<u32, Cpu>::new();
    for &(cpu, ref stock) in stocks.iter().flatten() {
        let row = cpus.entry(cpu).or_insert_with(|| Cpu {
            cpu,
            online: online.contains(&cpu),
            ..Cpu::default()
        });
        let [word, batch] = [stock.word, stock.uncharge_batch].map(StockWord);
        let name = |word: StockWord| names.get(&index_of(word.owner())).cloned();
        row.slots.push(Slot {
            cgroup: name(word),
            nr_pages: word.charged().into(),
            pending: word.pending().into(),
            uncharge_cgroup: name(batch),
            uncharge_pages: batch.charged().into(),
        });
        for &stat in CpuStat::ALL {
            let of_slot = match stat {
                CpuStat::Faults if !engine.sees_faults() => continue,
                CpuStat::Faults => stock.faults,
                CpuStat::Charged => stock.from_stock + stock.missed,
                CpuStat::FromStock => stock.from_stock,
                CpuStat::Refills => stock.refills,
                CpuStat::Drains => stock.drains,
                CpuStat::Charges => stock.charges,
                CpuStat::Uncharges => stock.uncharges,
            };
            *row.stats[stat as usize].get_or_insert_default() += of_slot;
        }
    }
    Ok(cpus.into_values().collect())
}

fn cgroup(engine: &Engine, counter: &Counter<u64>, stocked: u64, work: Work) -> Cgroup {
    let of_cgroup = |stat| match stat {
        CgroupStat::Stocked => Some(stocked),
        CgroupStat::Faults => engine.sees_faults().then_some(work.faults),
        CgroupStat::Charged => Some(work.from_stock + work.missed),
        CgroupStat::FromStock => Some(work.from_stock),
        CgroupStat::Singles => Some(work.singles),
        CgroupStat::Forced => Some(work.forced),
    };
    let stats = std::array::from_fn(|n| of_cgroup(CgroupStat::ALL[n]));
    let memory = page_counter(&counter.memory, counter.memory_limit);
    let memsw = if engine.info().memsw == 1 {
        page_counter(&counter.memsw, counter.memsw_limit)
    } else {
        let mirrored = |stat| match stat {
            PageCounterStat::Limit => None,
            PageCounterStat::Failcnt => Some(0),
            _ => memory.get(stat),
        };
        PageCounter { stats: std::array::from_fn(|i| mirrored(PageCounterStat::ALL[i])) }
    };
    Cgroup { memory, memsw, stats, ..Cgroup::default() }
}

fn parts(counter: &Counter<u64>, flight: InFlight) -> [u64; MemoryStat::COUNT as usize] {
    let Need { file, needed } = Need::of(counter, flight);
    let value = |stat| match stat {
        MemoryStat::File => file,
        MemoryStat::Needed => needed,
        // The watermark covers the last charge only at the next change.
        MemoryStat::NeededWatermark => counter.needed_watermark.max(needed),
        MemoryStat::FileOver if needed > counter.memory_limit => 0,
        MemoryStat::FileOver => (file + needed).saturating_sub(counter.memory_limit),
    };
    std::array::from_fn(|n| value(MemoryStat::ALL[n]))
}

fn page_counter(counter: &memstock_common::PageCounter<u64>, limit: u64) -> PageCounter {
    let value = |stat| match stat {
        PageCounterStat::Usage => Some(counter.usage),
        PageCounterStat::Limit => limit_of(limit),
        PageCounterStat::Watermark => Some(counter.watermark),
        PageCounterStat::Failcnt => Some(counter.failcnt),
    };
    PageCounter { stats: std::array::from_fn(|i| value(PageCounterStat::ALL[i])) }
}
