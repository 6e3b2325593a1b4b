//! From maps to model: reads a running engine once.

use std::collections::BTreeMap;

use anyhow::Result;
use memstock_common::counter::limit_of;
use memstock_common::stat::{CgroupStat, CpuStat, PageCounterStat, ProbeStat, Stat};
use memstock_common::{Counter, Loss, Stock, StockWord, index_of};

use crate::cgroup::CgroupMount;
use crate::engine::{Engine, PerCpu, unused};
use crate::host;
use crate::model::{Cgroup, Cpu, Name, PageCounter, Sample, Slot};

/// Reads the engine.
///
/// # Errors
/// A map cannot be read.
pub fn sample(engine: &Engine, mount: &CgroupMount) -> Result<Sample> {
    let counters = engine.counters();
    let tracked = engine.tracked()?;
    let names: Names = counters
        .iter()
        .map(|(&index, counter)| {
            // The id of a dying one may be another's by now.
            let path = tracked.contains(&index).then(|| mount.path_of(counter.id)).flatten();
            (index, Name { id: counter.id, path })
        })
        .collect();
    let stocks = stocks(engine)?;
    let unused = unused(stocks.iter().flatten().map(|(_, stock)| stock));
    let mut cgroups = Vec::new();
    for (&index, counter) in &counters {
        let stocked = unused.get(&index).copied().unwrap_or_default();
        let mut cgroup = cgroup(engine, index, counter, stocked)?;
        cgroup.name = names.get(&index).cloned().unwrap_or_default();
        cgroup.parent_id = names.get(&index_of(counter.parent as u32)).map(|parent| parent.id);
        cgroup.is_dying = !tracked.contains(&index);
        cgroups.push(cgroup);
    }
    cgroups.sort_by(|a, b| (&a.name.path, a.name.id).cmp(&(&b.name.path, b.name.id)));
    Ok(Sample {
        batch: engine.info().batch,
        has_memsw: engine.info().memsw == 1,
        cpus: cpus(&stocks, &names)?,
        cgroups,
        loss: losses(engine)?,
    })
}

/// Everything that was lost, skipped or merged, and how often.
///
/// # Errors
/// A map cannot be read, or the kernel does not tell.
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

/// Every slot of every CPU: outer by slot.
type Stocks = Vec<PerCpu<Stock<u64>>>;

fn stocks(engine: &Engine) -> Result<Stocks> {
    (0..engine.info().slots).map(|slot| engine.stocks(slot)).collect()
}

/// What is called how, by counter index.
type Names = BTreeMap<u32, Name>;

fn cpus(stocks: &Stocks, names: &Names) -> Result<Vec<Cpu>> {
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
            row.stats[stat as usize] += match stat {
                CpuStat::Hits => stock.hits,
                CpuStat::Misses => stock.misses,
                CpuStat::Refills => stock.refills,
                CpuStat::Drains => stock.drains,
                CpuStat::Charges => stock.charges,
                CpuStat::Uncharges => stock.uncharges,
            };
        }
    }
    Ok(cpus.into_values().collect())
}

fn cgroup(engine: &Engine, index: u32, counter: &Counter<u64>, stocked: u64) -> Result<Cgroup> {
    let work = work(engine, index)?;
    let mut stats = [0; CgroupStat::COUNT as usize];
    for &stat in CgroupStat::ALL {
        stats[stat as usize] = match stat {
            CgroupStat::Stocked => stocked,
            CgroupStat::Faults => work.hits + work.misses,
            CgroupStat::Hits => work.hits,
            CgroupStat::Misses => work.misses,
            CgroupStat::Singles => work.singles,
            CgroupStat::Forced => work.forced,
        };
    }
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
    Ok(Cgroup { memory, memsw, stats, ..Cgroup::default() })
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

/// What a cgroup did on all CPUs together.
#[derive(Default)]
struct Work {
    hits: u64,
    misses: u64,
    singles: u64,
    forced: u64,
}

/// Sums up the settled figures of a cgroup and the hits that slots have yet to credit to it.
///
/// A miss moves hits from the slot to the cgroup's share; read in between, they would be seen
/// twice or not at all. So a CPU's figures count only when its slots were the same before and
/// after. A CPU that misses faster than it can be read is taken as it was seen last: off by at
/// most a batch, for this one reading.
fn work(engine: &Engine, index: u32) -> Result<Work> {
    let mut before = stocks(engine)?;
    for attempt in 1.. {
        let shares = engine.cgroup_cpu(index)?;
        let after = stocks(engine)?;
        let stable =
            before.iter().flatten().zip(after.iter().flatten()).all(|((_, before), (_, after))| {
                (before.settled, before.credit) == (after.settled, after.credit)
            });
        before = after;
        if !stable && attempt < 16 {
            continue;
        }
        let mut work = Work::default();
        for (_, share) in shares {
            work.hits += share.hits;
            work.misses += share.misses;
            work.singles += share.singles;
            work.forced += share.forced;
        }
        work.hits += before
            .iter()
            .flatten()
            .filter(|(_, stock)| index_of(stock.credit as u32) == index)
            .map(|(_, stock)| stock.hits - stock.settled)
            .sum::<u64>();
        return Ok(work);
    }
    Ok(Work::default())
}
