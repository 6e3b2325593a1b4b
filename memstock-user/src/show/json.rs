//! A sample as JSON. Sizes in bytes, no limit is null.

use memstock_common::stat::{CgroupStat, CpuStat, PageCounterStat, Unit};
use serde_json::{Map, Value, json};

use crate::cgroup::{display, hex_unless_plain};
use crate::model::{Cgroup, Cpu, Name, PageCounter, Sample};

/// The document that `memstock show --json` prints.
pub fn document(sample: &Sample, page_size: u64) -> Value {
    let mut loss = Map::new();
    for (counter, value) in &sample.loss {
        loss.insert(counter.name.into(), json!(value));
    }
    json!({
        "cpus": sample.cpus.iter().map(cpu).collect::<Vec<_>>(),
        "cgroups": sample.cgroups.iter().map(|c| cgroup(c, page_size)).collect::<Vec<_>>(),
        "batch": sample.batch,
        "loss": loss,
    })
}

fn cpu(cpu: &Cpu) -> Value {
    let slots: Vec<_> = cpu
        .slots
        .iter()
        .map(|slot| {
            json!({
                "cgroup": slot.cgroup.as_ref().map(path),
                "cgroup_id": slot.cgroup.as_ref().map(|name| name.id),
                "nr_pages": slot.nr_pages,
                "pending": slot.pending,
                "uncharge_cgroup_id": slot.uncharge_cgroup.as_ref().map(|name| name.id),
                "uncharge_pages": slot.uncharge_pages,
            })
        })
        .collect();
    let mut row = Map::new();
    row.insert("cpu".into(), json!(cpu.cpu));
    row.insert("online".into(), json!(cpu.online));
    row.insert("slots".into(), json!(slots));
    for &stat in CpuStat::ALL {
        row.insert(stat.stat().name.into(), json!(cpu.get(stat)));
    }
    Value::Object(row)
}

fn cgroup(cgroup: &Cgroup, page_size: u64) -> Value {
    let mut row = Map::new();
    insert_name(&mut row, &cgroup.name);
    row.insert("parent_id".into(), json!(cgroup.parent_id));
    row.insert("dying".into(), json!(cgroup.is_dying));
    row.insert("memory".into(), page_counter(&cgroup.memory, page_size));
    row.insert("memsw".into(), page_counter(&cgroup.memsw, page_size));
    for &stat in CgroupStat::ALL {
        let declared = stat.stat();
        row.insert(
            declared.name.into(),
            json!(in_unit(cgroup.get(stat), declared.unit, page_size)),
        );
    }
    Value::Object(row)
}

fn page_counter(counter: &PageCounter, page_size: u64) -> Value {
    let mut row = Map::new();
    for &stat in PageCounterStat::ALL {
        let declared = stat.stat();
        let value = counter.get(stat).map(|value| in_unit(value, declared.unit, page_size));
        row.insert(declared.name.into(), json!(value));
    }
    Value::Object(row)
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
