//! A sample and a drain as JSON. Sizes of a sample in bytes, no limit is null.

use memstock_common::stat::{
    CgroupStat, CpuStat, CpuState, DrainStat, EngineStat, MemoryStat, PageCounterStat, SlotStat,
    Unit,
};
use serde_json::{Map, Value, json};

use crate::enforce::drains::Receipt;
use crate::host::cgroup::{display, hex_unless_plain};
use crate::model::{Cgroup, Cpu, Name, PageCounter, Sample, Slot};

/// The document that `memstock show --json` prints.
pub fn document(sample: &Sample, page_size: u64) -> Value {
    let mut loss = Map::new();
    for (counter, value) in &sample.loss {
        loss.insert(counter.name.into(), json!(value));
    }
    let mut document = Map::new();
    document.insert("cpus".into(), sample.cpus.iter().map(cpu).collect());
    let cgroups = sample.cgroups.iter().map(|c| cgroup(c, page_size)).collect();
    document.insert("cgroups".into(), cgroups);
    document.insert(EngineStat::Batch.stat().name.into(), json!(sample.batch));
    document.insert("loss".into(), loss.into());
    document.insert("degraded".into(), json!(sample.degraded));
    document.into()
}

/// The document that `memstock drain --json` prints.
pub fn drained(receipt: &Receipt) -> Value {
    let [nr_pages, took_us] = [DrainStat::NrPages, DrainStat::TookUs].map(|stat| stat.stat().name);
    let cpu = |(&cpu, &value): (&u32, &u64)| json!({ "cpu": cpu, nr_pages: value });
    json!({
        "cpus": receipt.cpus.iter().map(cpu).collect::<Vec<_>>(),
        nr_pages: receipt.nr_pages(),
        took_us: receipt.took.as_micros() as u64,
    })
}

fn cpu(cpu: &Cpu) -> Value {
    let mut row = Map::new();
    row.insert("cpu".into(), json!(cpu.cpu));
    row.insert(CpuState::Online.stat().name.into(), json!(cpu.online));
    row.insert("slots".into(), cpu.slots.iter().map(slot).collect());
    for &stat in CpuStat::ALL {
        row.insert(stat.stat().name.into(), json!(cpu.get(stat)));
    }
    Value::Object(row)
}

fn slot(slot: &Slot) -> Value {
    let mut row = Map::new();
    row.insert("cgroup".into(), json!(slot.cgroup.as_ref().map(path)));
    row.insert("cgroup_id".into(), json!(slot.cgroup.as_ref().map(|name| name.id)));
    row.insert(
        "uncharge_cgroup_id".into(),
        json!(slot.uncharge_cgroup.as_ref().map(|name| name.id)),
    );
    for &stat in SlotStat::ALL {
        row.insert(stat.stat().name.into(), json!(slot.get(stat)));
    }
    Value::Object(row)
}

fn cgroup(cgroup: &Cgroup, page_size: u64) -> Value {
    let mut row = Map::new();
    insert_name(&mut row, &cgroup.name);
    row.insert("parent_id".into(), json!(cgroup.parent_id));
    row.insert("dying".into(), json!(cgroup.is_dying));
    let mut memory = page_counter(&cgroup.memory, page_size);
    for &stat in MemoryStat::ALL {
        let declared = stat.stat();
        let value = in_unit(cgroup.part(stat), declared.unit, page_size);
        memory.insert(declared.name.into(), json!(value));
    }
    row.insert("memory".into(), memory.into());
    row.insert("memsw".into(), page_counter(&cgroup.memsw, page_size).into());
    for &stat in CgroupStat::ALL {
        let declared = stat.stat();
        let value = cgroup.get(stat).map(|value| in_unit(value, declared.unit, page_size));
        row.insert(declared.name.into(), json!(value));
    }
    Value::Object(row)
}

fn page_counter(counter: &PageCounter, page_size: u64) -> Map<String, Value> {
    let mut row = Map::new();
    for &stat in PageCounterStat::ALL {
        let declared = stat.stat();
        let value = counter.get(stat).map(|value| in_unit(value, declared.unit, page_size));
        row.insert(declared.name.into(), json!(value));
    }
    row
}

/// The path and the id of a cgroup, and what the path is made of if it is not all text.
pub(super) fn insert_name(row: &mut Map<String, Value>, name: &Name) {
    row.insert("path".into(), json!(path(name)));
    if let Some(hex) = name.path.as_deref().and_then(hex_unless_plain) {
        row.insert("path_hex".into(), json!(hex));
    }
    row.insert("id".into(), json!(name.id));
}

fn path(name: &Name) -> Option<String> {
    name.path.as_deref().map(display)
}

fn in_unit(value: u64, unit: Unit, page_size: u64) -> u64 {
    match unit {
        Unit::Bytes => value * page_size,
        _ => value,
    }
}
