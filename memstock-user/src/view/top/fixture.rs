//! A sample for the tests of the view.

use std::time::Instant;

use memstock_common::Loss;
use memstock_common::stat::{CgroupStat, CpuStat, MemoryStat, PageCounterStat};

use super::source::Reading;
use crate::model::{Cgroup, Cpu, Figure, Name, PageCounter, Sample, Slot};

/// A reading of this sample.
pub fn reading(sample: Sample, at: Instant) -> Reading {
    let (pressures, warnings) = Default::default();
    Reading { sample, at, daemon: Some(4121), is_new_engine: false, pressures, warnings }
}

/// A cgroup with this id, path, parent, usage and limit in pages.
pub fn cgroup(id: u64, path: &str, parent: Option<u64>, usage: u64, limit: Option<u64>) -> Cgroup {
    let mut memory = PageCounter::default();
    memory.stats[PageCounterStat::Usage as usize] = usage.into();
    memory.stats[PageCounterStat::Limit as usize] = limit.into();
    let mut stats = [Figure::from(0); CgroupStat::COUNT as usize];
    stats[CgroupStat::Stocked as usize] = id.into();
    stats[CgroupStat::Faults as usize] = (100 * id).into();
    stats[CgroupStat::Charged as usize] = (100 * id).into();
    stats[CgroupStat::FromStock as usize] = (90 * id).into();
    let mut parts = [0; MemoryStat::COUNT as usize];
    parts[MemoryStat::Needed as usize] = usage * 3 / 4;
    parts[MemoryStat::NeededWatermark as usize] = usage;
    let name = Name::new(id, Some(path.into()));
    Cgroup { name, parent_id: parent, memory, parts, stats, ..Cgroup::default() }
}

/// Two trees, one close to its limit and one with a dying cgroup, and two CPUs.
pub fn sample() -> Sample {
    let mut cgroups = vec![
        cgroup(2, "/batch", None, 5_000, None),
        cgroup(5, "/batch/nightly", Some(2), 1_000, None),
        cgroup(1, "/web", None, 60_000, Some(65_536)),
        cgroup(3, "/web/api", Some(1), 40_000, Some(40_960)),
        cgroup(4, "/web/static", Some(1), 19_000, None),
    ];
    cgroups[1].is_dying = true;
    cgroups[2].memory.stats[PageCounterStat::Failcnt as usize] = 17.into();
    let slot = |of: usize, nr_pages, pending| Slot {
        cgroup: Some(cgroups[of].name.clone()),
        nr_pages,
        pending,
        uncharge_cgroup: (pending > 0).then(|| cgroups[0].name.clone()),
        uncharge_pages: 7 * pending,
    };
    let cpu = |cpu: u32, slot| {
        let mut row = Cpu { cpu, online: cpu == 0, slots: vec![slot], ..Cpu::default() };
        for &stat in CpuStat::ALL {
            row.stats[stat as usize] = (1000 * u64::from(cpu + 1) + stat as u64).into();
        }
        row
    };
    let cpus = vec![cpu(0, slot(3, 15, 1)), cpu(1, slot(4, 31, 0))];
    let loss = vec![(Loss::EventsMerged.stat(), 3)];
    Sample { batch: 32, cpus, cgroups, loss, ..Sample::default() }
}

/// The same sample some time later, with higher counts.
pub fn later() -> Sample {
    let mut sample = sample();
    let add = |figure: &mut Figure, more| *figure = figure.get().map(|value| value + more).into();
    for Cgroup { name, stats, .. } in &mut sample.cgroups {
        add(&mut stats[CgroupStat::Faults as usize], 1_000 * name.id);
        add(&mut stats[CgroupStat::Charged as usize], 1_000 * name.id);
        add(&mut stats[CgroupStat::FromStock as usize], 969 * name.id);
    }
    sample.cgroups[3].memory.stats[PageCounterStat::Failcnt as usize] = 2.into();
    for Cpu { stats, .. } in &mut sample.cpus {
        add(&mut stats[CpuStat::Faults as usize], 12_743);
        add(&mut stats[CpuStat::Charged as usize], 12_743);
        add(&mut stats[CpuStat::FromStock as usize], 12_345);
        add(&mut stats[CpuStat::Refills as usize], 398);
    }
    sample
}
