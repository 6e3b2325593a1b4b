//! A sample and a drain as JSON. Sizes of a sample are in bytes; no limit is null. `schema` publishes these types
//! together with the declarations of the numbers.

use std::marker::PhantomData;

use memstock_common::stat::{
    CgroupStat, CpuStat, DrainStat, MemoryStat, PageCounterStat, SlotStat, Stat, Stats, Unit,
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::enforce::drains::Receipt;
use crate::host::cgroup::display;
use crate::journal::record::{self, CpuPages, by_cpu};
use crate::model::{Cgroup, Cpu, Name, PageCounter, Sample, Slot};

/// The numbers of a declaration, as members of an object.
pub(super) struct Numbers<T> {
    /// By their place in the declaration. Not on the heap: there are several for each cgroup.
    values: [Option<u64>; MOST],
    of: PhantomData<T>,
}

/// The most numbers of a declaration.
const MOST: usize = 8;

impl<T: Stats> Numbers<T> {
    const FIT: () = assert!(T::ALL.len() <= MOST);

    fn new<N: Into<Option<u64>>>(value: impl Fn(T) -> N) -> Self {
        let () = Self::FIT;
        let value = |n| T::ALL.get(n).and_then(|&stat| value(stat).into());
        Self { values: std::array::from_fn(value), of: PhantomData }
    }
}

impl<T: Stats> Serialize for Numbers<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = T::ALL.iter().map(|stat| stat.stat().name);
        serializer.collect_map(names.zip(&self.values))
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Show<'a> {
    /// Every possible CPU.
    cpus: Vec<CpuRow>,
    /// Every tracked and every dying cgroup, by path.
    #[serde(serialize_with = "rows")]
    #[cfg_attr(test, schemars(with = "Vec<CgroupRow>"))]
    cgroups: (&'a [Cgroup], u64),
    /// Pages charged at once on a miss.
    batch: u32,
    #[cfg_attr(test, schemars(schema_with = "super::schema::loss"))]
    loss: Map<String, Value>,
    /// Why the daemon is degraded, as lines of `name: text`, like /readyz; empty if it is not.
    degraded: &'a [String],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CpuRow {
    /// Its number.
    cpu: u32,
    /// Whether it is online.
    online: bool,
    /// Its stock.
    slots: Vec<SlotRow>,
    #[serde(flatten)]
    work: Numbers<CpuStat>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SlotRow {
    /// Path of the cgroup that the slot is cached for; null for none.
    cgroup: Option<String>,
    /// Its cgroup v2 id.
    cgroup_id: Option<u64>,
    /// The cgroup that the uncharge batch is for.
    uncharge_cgroup_id: Option<u64>,
    #[serde(flatten)]
    pages: Numbers<SlotStat>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CgroupRow {
    #[serde(flatten)]
    name: record::Cgroup,
    /// The nearest tracked ancestor.
    parent_id: Option<u64>,
    /// Whether it is removed, and only waits for its pages to be freed.
    dying: bool,
    memory: Memory,
    memsw: Numbers<PageCounterStat>,
    #[serde(flatten)]
    work: Numbers<CgroupStat>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Memory {
    #[serde(flatten)]
    counter: Numbers<PageCounterStat>,
    #[serde(flatten)]
    parts: Numbers<MemoryStat>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Drained {
    /// Every CPU that was asked.
    cpus: Vec<CpuPages>,
    #[serde(flatten)]
    sums: Numbers<DrainStat>,
}

/// The document that `memstock show --json` prints.
pub fn document(sample: &Sample, page_size: u64) -> impl Serialize {
    Show {
        cpus: sample.cpus.iter().map(cpu).collect(),
        cgroups: (&sample.cgroups, page_size),
        batch: sample.batch,
        loss: members(&sample.loss),
        degraded: &sample.degraded,
    }
}

/// The document that `memstock drain --json` prints.
pub fn drained(receipt: &Receipt) -> Value {
    let sum = |stat| match stat {
        DrainStat::NrPages => receipt.nr_pages(),
        DrainStat::TookUs => receipt.took.as_micros() as u64,
    };
    json!(Drained { cpus: by_cpu(&receipt.cpus), sums: Numbers::new(sum) })
}

/// One row after the other, since there may be many.
fn rows<S: Serializer>(
    &(cgroups, page_size): &(&[Cgroup], u64),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(cgroups.iter().map(|it| cgroup(it, page_size)))
}

fn cpu(cpu: &Cpu) -> CpuRow {
    CpuRow {
        cpu: cpu.cpu,
        online: cpu.online,
        slots: cpu.slots.iter().map(slot).collect(),
        work: Numbers::new(|stat| cpu.get(stat)),
    }
}

fn slot(slot: &Slot) -> SlotRow {
    let id = |name: &Option<Name>| name.as_ref().map(|name| name.id);
    SlotRow {
        cgroup: slot.cgroup.as_ref().and_then(|name| name.path.as_deref()).map(display),
        cgroup_id: id(&slot.cgroup),
        uncharge_cgroup_id: id(&slot.uncharge_cgroup),
        pages: Numbers::new(|stat| slot.get(stat)),
    }
}

fn cgroup(cgroup: &Cgroup, page_size: u64) -> CgroupRow {
    let in_unit = |value: u64, stat: Stat| match stat.unit {
        Unit::Bytes => value * page_size,
        _ => value,
    };
    let counter = |of: &PageCounter| {
        Numbers::new(|it: PageCounterStat| of.get(it).map(|value| in_unit(value, it.stat())))
    };
    CgroupRow {
        name: named(&cgroup.name),
        parent_id: cgroup.parent_id,
        dying: cgroup.is_dying,
        memory: Memory {
            counter: counter(&cgroup.memory),
            parts: Numbers::new(|stat| in_unit(cgroup.part(stat), stat.stat())),
        },
        memsw: counter(&cgroup.memsw),
        work: Numbers::new(|stat| cgroup.get(stat).map(|value| in_unit(value, stat.stat()))),
    }
}

pub(super) fn named(name: &Name) -> record::Cgroup {
    let named = record::Cgroup::new(name.id, name.path.as_deref());
    record::Cgroup { name: name.workload.as_deref().cloned(), ..named }
}

pub(super) fn members(counted: &[(Stat, u64)]) -> Map<String, Value> {
    counted.iter().map(|&(stat, count)| (stat.name.to_owned(), count.into())).collect()
}
