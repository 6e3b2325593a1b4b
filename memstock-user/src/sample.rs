//! From maps to model: reads a running engine once.

use std::collections::BTreeMap;

use anyhow::Result;
use memstock_common::counter::{limit_of, parent_index};
use memstock_common::stat::{CgroupStat, CpuStat, PageCounterStat, ProbeStat, Stat};
use memstock_common::stock::creditor;
use memstock_common::{Counter, Loss, Stock, StockWord, owner_of};

use crate::cgroup::CgroupMount;
use crate::engine::{Engine, PerCpu};
use crate::host;
use crate::model::{Cgroup, Cpu, Name, PageCounter, Sample, Slot};

/// Reads the engine.
///
/// # Errors
/// A map cannot be read.
pub fn sample(engine: &Engine, mount: &CgroupMount) -> Result<Sample> {
    let tracked = engine.tracked()?;
    let names: BTreeMap<u64, Name> = tracked
        .values()
        .map(|counter| (counter.id, Name { id: counter.id, path: mount.path_of(counter.id) }))
        .collect();
    let stocks = stocks(engine)?;
    let mut cgroups = tracked
        .iter()
        .map(|(&index, counter)| cgroup(engine, &tracked, &names, &stocks, index, counter))
        .collect::<Result<Vec<_>>>()?;
    cgroups.sort_by(|a, b| (&a.name.path, a.name.id).cmp(&(&b.name.path, b.name.id)));
    Ok(Sample {
        batch: engine.info().batch,
        cpus: cpus(&stocks, &names)?,
        cgroups,
        loss: loss(engine)?,
    })
}

fn loss(engine: &Engine) -> Result<Vec<(Stat, u64)>> {
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

fn cpus(stocks: &Stocks, names: &BTreeMap<u64, Name>) -> Result<Vec<Cpu>> {
    let online = host::cpus()?.online;
    let mut cpus = BTreeMap::<u32, Cpu>::new();
    for &(cpu, ref stock) in stocks.iter().flatten() {
        let row = cpus.entry(cpu).or_insert_with(|| Cpu {
            cpu,
            online: online.contains(&cpu),
            ..Cpu::default()
        });
        let word = StockWord(stock.word);
        row.slots.push(Slot {
            cgroup: names.values().find(|name| owner_of(name.id) == word.owner()).cloned(),
            nr_pages: word.charged().into(),
        });
        for &stat in CpuStat::ALL {
            row.stats[stat as usize] += match stat {
                CpuStat::Hits => stock.hits,
                CpuStat::Misses => stock.misses,
                CpuStat::Refills => stock.refills,
                CpuStat::Drains => stock.drains,
            };
        }
    }
    Ok(cpus.into_values().collect())
}

fn cgroup(
    engine: &Engine,
    tracked: &BTreeMap<u32, Counter<u64>>,
    names: &BTreeMap<u64, Name>,
    stocks: &Stocks,
    index: u32,
    counter: &Counter<u64>,
) -> Result<Cgroup> {
    let work = work(engine, index)?;
    let stocked: u64 = stocks
        .iter()
        .flatten()
        .map(|(_, stock)| StockWord(stock.word))
        .filter(|word| word.owner() == owner_of(counter.id))
        .map(|word| u64::from(word.charged()))
        .sum();
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
    Ok(Cgroup {
        name: names.get(&counter.id).cloned().unwrap_or_default(),
        parent_id: tracked.get(&parent_index(counter.parent)).map(|parent| parent.id),
        memory,
        memsw,
        stats,
    })
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
            .filter(|(_, stock)| creditor(stock.credit) == index)
            .map(|(_, stock)| stock.hits - stock.settled)
            .sum::<u64>();
        return Ok(work);
    }
    Ok(Work::default())
}
