//! From maps to model: reads a running engine, with a system call for each of its CPU slots and for each 64 KiB of what
//! cgroups did, and some for each cgroup with new children. `names` finds the paths, `work` reads twice what must be
//! exact.

mod names;
mod work;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Result;
use memstock_common::counter::limit_of;
use memstock_common::stat::{CgroupStat, CpuStat, MemoryStat, PageCounterStat, ProbeStat, Stat};
use memstock_common::{Counter, Loss, Stock, StockWord, index_of};

use crate::engine::needed::{InFlight, Need, in_flight, unused};
use crate::engine::{Counters, Engine, PerCpu};
use crate::host;
use crate::host::cgroup::CgroupMount;
use crate::model::{Cgroup, Cpu, Name, PageCounter, Sample, Slot};
pub use names::Paths;
use work::Work;

/// Reads the engine once.
///
/// # Errors
/// A map cannot be read.
pub fn sample(engine: &Engine, mount: &CgroupMount, paths: &mut Paths) -> Result<Sample> {
    let counters = engine.counters();
    let tracked = paths.update(&counters, mount, || engine.tracked())?;
    let names = Names { counters: &counters, paths };
    let stocks = stocks(engine)?;
    let unused = unused(stocks.iter().flatten().map(|(_, stock)| stock));
    let flights =
        in_flight(|at| counters.parent(at), stocks.iter().flatten().map(|(_, stock)| stock));
    let indices: Vec<_> = counters.indices().collect();
    let work = work::of(engine, &indices)?;
    // Sorted before they are built: a row is many times as large as what it is sorted by.
    let mut places = Vec::with_capacity(indices.len());
    places.extend(counters.iter().zip(&work).map(|((index, counter), work)| {
        (paths.get(index, counter.id).map(|path| &**path), index, counter, work)
    }));
    places.sort_unstable_by(|(a, _, one, _), (b, _, other, _)| {
        by_path(*a, *b).then_with(|| one.id.cmp(&other.id))
    });
    let row = |(_, index, counter, work): (Option<&Path>, u32, &Counter<u64>, &Work)| {
        let stocked = unused.get(&index).copied().unwrap_or_default();
        let flight = flights.get(&index).copied().unwrap_or_default();
        let above = counters.parent(index).and_then(|above| counters.get(above));
        Cgroup {
            name: Name {
                path: paths.get(index, counter.id).cloned(),
                ..Name::new(counter.id, None)
            },
            parent_id: above.map(|above| above.id),
            is_dying: tracked.as_ref().is_some_and(|tracked| !tracked.contains(&index)),
            parts: parts(counter, flight),
            ..cgroup(engine, counter, stocked, *work)
        }
    };
    Ok(Sample {
        degraded: Vec::new(),
        batch: engine.info().batch,
        has_memsw: engine.info().memsw == 1,
        cpus: cpus(engine, &stocks, &names)?,
        cgroups: places.into_iter().map(row).collect(),
        loss: losses(engine)?,
    })
}

/// The order of paths, by bytes, which is several times as fast as that of [`Path`]: a slash sorts before any byte of a
/// name. Those without a path come first.
fn by_path(a: Option<&Path>, b: Option<&Path>) -> Ordering {
    match [a, b].map(|path| Some(path?.as_os_str().as_bytes())) {
        [Some(one), Some(other)] => {
            // Most paths have much in common: eight bytes at a time.
            let eights = one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0);
            let same = 8 * eights.take_while(|(one, other)| one == other).count();
            let mut pairs = one[same..].iter().zip(&other[same..]);
            let differing = pairs.find(|(one, other)| one != other);
            let by_byte =
                differing.map(|(one, other)| (*one != b'/', one).cmp(&(*other != b'/', other)));
            by_byte.unwrap_or(one.len().cmp(&other.len()))
        }
        [one, other] => one.is_some().cmp(&other.is_some()),
    }
}

/// The names of cgroups, by counter.
struct Names<'a> {
    counters: &'a Counters,
    paths: &'a Paths,
}

impl Names<'_> {
    fn of_owner(&self, owner: u32) -> Option<Name> {
        let index = index_of(owner);
        let id = self.counters.get(index)?.id;
        Some(Name { path: self.paths.get(index, id).cloned(), ..Name::new(id, None) })
    }
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

fn cpus(engine: &Engine, stocks: &Stocks, names: &Names<'_>) -> Result<Vec<Cpu>> {
    let online = host::cpus()?.online;
    let mut cpus = BTreeMap::<u32, Cpu>::new();
    for &(cpu, ref stock) in stocks.iter().flatten() {
        let row = cpus.entry(cpu).or_insert_with(|| Cpu {
            cpu,
            online: online.contains(&cpu),
            ..Cpu::default()
        });
        let [word, batch] = [stock.word, stock.uncharge_batch].map(StockWord);
        let name = |word: StockWord| names.of_owner(word.owner());
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
            let sum = &mut row.stats[stat as usize];
            *sum = (sum.get().unwrap_or_default() + of_slot).into();
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
    let stats = std::array::from_fn(|n| of_cgroup(CgroupStat::ALL[n]).into());
    let memory = page_counter(&counter.memory, counter.memory_limit);
    let memsw = if engine.info().memsw == 1 {
        page_counter(&counter.memsw, counter.memsw_limit)
    } else {
        let mirrored = |stat| match stat {
            PageCounterStat::Limit => None,
            PageCounterStat::Failcnt => Some(0),
            _ => memory.get(stat),
        };
        PageCounter { stats: std::array::from_fn(|i| mirrored(PageCounterStat::ALL[i]).into()) }
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
    PageCounter { stats: std::array::from_fn(|i| value(PageCounterStat::ALL[i]).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_paths_then_of_ids() {
        let paths = [
            "/b",
            "/a-b",
            "/a/b",
            "/a",
            "/a.b/c",
            "/a/b/c",
            "/a/b-c",
            "/ab",
            "/a\u{fc}",
            "/a/b/c/d/e",
            "/a/b/c-d/e",
        ];
        let named = paths.iter().zip(0..).map(|(path, id)| Name::new(id, Some(path.into())));
        let again = Name::new(99, Some("/a/b".into()));
        let removed = [7, 3].map(|id| Name::new(id, None));
        let mut names: Vec<_> = named.chain([again]).chain(removed).collect();
        let mut expected = names.clone();
        expected.sort_by(|a, b| (&a.path, a.id).cmp(&(&b.path, b.id)));
        names.sort_by(|a, b| by_path(a.path.as_deref(), b.path.as_deref()).then(a.id.cmp(&b.id)));
        assert_eq!(names, expected);
    }
}
