//! What the kernel's own memory controller has in stock, as tables and as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use memstock_common::{KernelCharges, KernelSlot};
use serde::Serialize;
use serde_json::{Value, json};

use super::table::{label, plain};
use crate::host::cgroup::{display, hex_unless_plain};
use crate::model::Name;
use crate::model::kernel::{CpuStocks, MemoryCgroup, Since, View, owned};
use crate::model::ratio::hit_rate;
use crate::model::size::human;

/// What `memstock kernel --json` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document {
    /// Version of cgroup whose hierarchy has the memory controller: 1 or 2. Ids and paths are of that hierarchy.
    cgroup_version: u8,
    /// Every CPU that is online, but for isolated ones without --isolated.
    cpus: Vec<CpuRow>,
    /// Cgroups with something in stock, and their ancestors; with --cgroup, that cgroup and its descendants. By path,
    /// removed ones first.
    cgroups: Vec<CgroupRow>,
    /// What happened since the sample before; null in the first, and without --watch.
    since: Option<SinceRow>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CpuRow {
    /// Its number.
    cpu: u32,
    /// Its slots of pages, in the kernel's order.
    slots: Vec<PagesRow>,
    /// Its slots for slab objects.
    objects: Vec<BytesRow>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PagesRow {
    /// Path of the memory cgroup that it is cached for; null for none, and for one that is removed.
    cgroup: Option<String>,
    /// Its id; null for none.
    cgroup_id: Option<u64>,
    /// Pages left: charged, but unused.
    nr_pages: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct BytesRow {
    /// Path of the memory cgroup that it is cached for; null for none, and for one that is removed.
    cgroup: Option<String>,
    /// Its id; null for none.
    cgroup_id: Option<u64>,
    /// Bytes left, of charged pages.
    nr_bytes: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CgroupRow {
    /// Its id in the hierarchy of the memory controller.
    id: u64,
    /// Its path there, with bytes that are not text escaped; null once it is removed.
    path: Option<String>,
    /// The bytes of the path in hexadecimal, if something in it was escaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    /// Its usage by the kernel, descendants included; null once it is removed.
    usage: Option<u64>,
    /// The part of it that is in stock, on all CPUs: charged, but unused.
    stranded: u64,
    /// Usage less stranded; null once it is removed.
    net: Option<u64>,
    /// How much each CPU's slots changed while the usage was read, added up: net can be off by this much.
    error: u64,
    /// The part of net that is in stock for slab objects.
    object_bytes: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SinceRow {
    /// Slots that passed from one cgroup to another: a lower bound, as a change that is undone between two samples is
    /// not seen.
    changed_hands: u64,
    /// Charges requested from the kernel, by anyone; null where its functions cannot be traced.
    charges: Option<u64>,
    /// Bytes requested by these charges.
    charged: Option<u64>,
    /// Calls of page_counter_try_charge: on cgroup v1 two for each charge that misses the stock, for memory and for
    /// memory+swap.
    shared_operations: Option<u64>,
    /// Percentage of charges that the stock served; null if there were none.
    hit_rate: Option<f64>,
}

/// The document.
pub fn document(view: &View, page_size: u64) -> Value {
    let path = |id: u64| view.paths.get(&id).map(display);
    let id = |id: u64| (id != 0).then_some(id);
    let pages = |slot: &KernelSlot<u64>| PagesRow {
        cgroup: path(slot.cgroup_id),
        cgroup_id: id(slot.cgroup_id),
        nr_pages: slot.left,
    };
    let bytes = |slot: &KernelSlot<u64>| BytesRow {
        cgroup: path(slot.cgroup_id),
        cgroup_id: id(slot.cgroup_id),
        nr_bytes: slot.left,
    };
    let cpu = |cpu: &CpuStocks| CpuRow {
        cpu: cpu.cpu,
        slots: cpu.pages.iter().map(pages).collect(),
        objects: cpu.bytes.iter().map(bytes).collect(),
    };
    let cgroup = |cgroup: &MemoryCgroup| CgroupRow {
        id: cgroup.name.id,
        path: cgroup.name.path.as_deref().map(display),
        path_hex: cgroup.name.path.as_deref().and_then(hex_unless_plain),
        usage: cgroup.usage.map(|usage| usage * page_size),
        stranded: cgroup.stranded * page_size,
        net: cgroup.net().map(|net| net * page_size),
        error: cgroup.error * page_size,
        object_bytes: cgroup.bytes,
    };
    json!(Document {
        cgroup_version: if view.is_v1 { 1 } else { 2 },
        cpus: view.cpus.iter().map(cpu).collect(),
        cgroups: view.cgroups.iter().map(cgroup).collect(),
        since: view.since.map(|since| since_row(since, view.is_v1, page_size)),
    })
}

fn since_row(since: Since, is_v1: bool, page_size: u64) -> SinceRow {
    SinceRow {
        changed_hands: since.changed_hands,
        charges: since.charges.map(|charges| charges.charges),
        charged: since.charges.map(|charges| charges.nr_pages * page_size),
        shared_operations: since.charges.map(|charges| charges.shared_operations),
        hit_rate: since.charges.and_then(|charges| rate(charges, is_v1)),
    }
}

/// On v1 a miss charges two counters.
fn rate(charges: KernelCharges<u64>, is_v1: bool) -> Option<f64> {
    let misses = charges.shared_operations as f64 / if is_v1 { 2.0 } else { 1.0 };
    let all = charges.charges as f64;
    hit_rate(all - misses, all)
}

/// Writes a table of the slots in use, one of the cgroups, and what happened since the previous sample.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, view: &View, page_size: u64) -> io::Result<()> {
    writeln!(out, "{}\n\n{}", slots(view), cgroups(view, page_size))?;
    let Some(since) = view.since else { return Ok(()) };
    writeln!(out, "\nslots that changed hands: at least {}", since.changed_hands)?;
    let Some(charges) = since.charges else {
        return writeln!(out, "charges: unknown, the kernel's functions cannot be traced\n");
    };
    let rate = rate(charges, view.is_v1).map(|rate| format!(", {rate:.2} % from a stock"));
    writeln!(
        out,
        "charges: {} of {} pages, {} calls of page_counter_try_charge{}\n",
        charges.charges,
        charges.nr_pages,
        charges.shared_operations,
        rate.unwrap_or_default()
    )
}

/// A line for each CPU and each cgroup that it has something in stock for.
fn slots(view: &View) -> String {
    let mut table = plain(["CPU", "CACHED CGROUP", "PAGES", "OBJECTS"], &[1]);
    for cpu in &view.cpus {
        for [name, pages, bytes] in stocks(view, cpu) {
            table.add_row([cpu.cpu.to_string(), name, pages, bytes]);
        }
    }
    table.trim_fmt()
}

/// What a CPU has in stock: name, pages and bytes for objects of each cgroup, or one line of dashes.
pub fn stocks(view: &View, cpu: &CpuStocks) -> Vec<[String; 3]> {
    let mut owners = BTreeMap::<(String, u64), [Option<u64>; 2]>::new();
    for (n, slots) in [&cpu.pages, &cpu.bytes].into_iter().enumerate() {
        for slot in owned(slots) {
            let id = slot.cgroup_id;
            let name = label(&Name::new(id, view.paths.get(&id).cloned()));
            *owners.entry((name, id)).or_default()[n].get_or_insert(0) += slot.left;
        }
    }
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    if owners.is_empty() {
        return vec![[(); 3].map(|()| known(None))];
    }
    let lines = owners.into_iter().map(|((name, _), [pages, bytes])| {
        [name, known(pages.map(|pages| pages.to_string())), known(bytes.map(human))]
    });
    lines.collect()
}

fn cgroups(view: &View, page_size: u64) -> String {
    let mut table = plain(["CGROUP", "USAGE", "STRANDED", "NET", "ERROR", "OBJECTS"], &[0]);
    for cgroup in &view.cgroups {
        let size = |pages: Option<u64>| pages.map_or_else(|| "-".into(), |n| human(n * page_size));
        table.add_row([
            label(&cgroup.name),
            size(cgroup.usage),
            size(Some(cgroup.stranded)),
            size(cgroup.net()),
            size(Some(cgroup.error)),
            human(cgroup.bytes),
        ]);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let slot = |cgroup_id, left| KernelSlot { cgroup_id, left };
        let cpu = |cpu, pages, bytes| CpuStocks { cpu, pages, bytes };
        let cpus = vec![
            cpu(0, vec![slot(5, 61), slot(0, 0), slot(9, 2)], vec![slot(5, 1024)]),
            cpu(1, vec![slot(0, 0); 3], vec![slot(0, 0)]),
        ];
        let after = cpus.clone();
        let paths = [(5, "/a".into()), (1, "/".into())].into();
        View::new(true, paths, cpus, &after, vec![(Some(100), "/a".into())])
    }

    #[test]
    fn a_view_is_two_tables() {
        let mut text = Vec::new();
        write(&mut text, &view(), 4096).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let expected = [
            "CPU CACHED CGROUP PAGES OBJECTS",
            "0 /a 61 1.0KiB",
            "0 id 9 2 -",
            "1 - - -",
            "",
            "CGROUP USAGE STRANDED NET ERROR OBJECTS",
            "id 9 - 8.0KiB - 0B 0B",
            "/a 400.0KiB 244.0KiB 156.0KiB 0B 1.0KiB",
        ];
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn the_rate_is_of_charges_that_the_stock_had() {
        let charges = KernelCharges { charges: 6400, nr_pages: 6400, shared_operations: 200 };
        let since = Since { changed_hands: 3, charges: Some(charges) };
        let document = document(&View { since: Some(since), ..view() }, 4096);
        let since = &document["since"];
        assert_eq!((&since["changed_hands"], &since["hit_rate"]), (&json!(3), &json!(98.4375)));
        let v2 = View { is_v1: false, since: view().since, ..view() };
        assert_eq!(super::document(&v2, 4096)["cgroup_version"], 2);
        let slots = &document["cpus"][0]["slots"];
        let slot = |cgroup: Option<&str>, id: Option<u64>, nr_pages: u64| json!({ "cgroup": cgroup, "cgroup_id": id, "nr_pages": nr_pages });
        let expected = [slot(Some("/a"), Some(5), 61), slot(None, None, 0), slot(None, Some(9), 2)];
        assert_eq!(*slots, json!(expected));
    }
}
