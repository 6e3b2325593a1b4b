//! A sample as plain tables: the CPUs with their stocks, then the cgroups.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use memstock_common::stat::{CgroupStat, CpuStat, MemoryStat, PageCounterStat, Stat, Unit};

use crate::host::cgroup::display;
use crate::model::size::human;
use crate::model::{Cgroup, Cpu, Name, Sample, Slot};

/// A column of the cgroup table.
#[derive(Clone, Copy)]
enum Column {
    Counter(PageCounterStat),
    Memory(MemoryStat),
    Cgroup(CgroupStat),
}

const COLUMNS: [Column; 9] = [
    Column::Counter(PageCounterStat::Usage),
    Column::Memory(MemoryStat::Needed),
    Column::Counter(PageCounterStat::Limit),
    Column::Counter(PageCounterStat::Watermark),
    Column::Memory(MemoryStat::NeededWatermark),
    Column::Counter(PageCounterStat::Failcnt),
    Column::Cgroup(CgroupStat::Stocked),
    Column::Cgroup(CgroupStat::Faults),
    Column::Cgroup(CgroupStat::Forced),
];

impl Column {
    const fn stat(self) -> Stat {
        match self {
            Self::Counter(stat) => stat.stat(),
            Self::Memory(stat) => stat.stat(),
            Self::Cgroup(stat) => stat.stat(),
        }
    }

    fn of(self, cgroup: &Cgroup) -> Option<u64> {
        match self {
            Self::Counter(stat) => cgroup.memory.get(stat),
            Self::Memory(stat) => Some(cgroup.part(stat)),
            Self::Cgroup(stat) => cgroup.get(stat),
        }
    }
}

/// Writes both tables, a line of losses if there are any, and a line for each reason why the daemon is degraded.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, sample: &Sample, page_size: u64) -> io::Result<()> {
    writeln!(out, "{}\n\n{}", cpus(sample), cgroups(sample, page_size))?;
    let losses: Vec<_> = sample
        .loss
        .iter()
        .filter(|(_, value)| *value > 0)
        .map(|(loss, value)| format!("{} {value}", loss.name))
        .collect();
    if !losses.is_empty() {
        writeln!(out, "\nloss: {}", losses.join(", "))?;
    }
    sample.degraded.iter().try_for_each(|reason| writeln!(out, "\ndegraded: {reason}"))
}

/// A table without borders, its columns right-aligned except for those of text.
pub fn plain<S: ToString>(head: impl IntoIterator<Item = S>, text_columns: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head.into_iter().map(|name| name.to_string()));
    for (n, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if !text_columns.contains(&n) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A count, or a dash if it is unknown.
pub(super) fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(crate) fn head(name: &str) -> String {
    name.to_uppercase()
}

fn cpus(sample: &Sample) -> String {
    let stocked = head(CgroupStat::Stocked.stat().name);
    let columns = ["CPU".to_owned(), "CACHED CGROUP".to_owned(), stocked].into_iter();
    let mut table =
        plain(columns.chain(CpuStat::ALL.iter().map(|stat| head(stat.stat().name))), &[1]);
    for cpu in &sample.cpus {
        let mut row = vec![
            if cpu.online { cpu.cpu.to_string() } else { format!("{} (offline)", cpu.cpu) },
            cached(cpu),
            cpu.slots
                .iter()
                .map(|slot| slot.nr_pages + slot.uncharge_pages)
                .sum::<u64>()
                .to_string(),
        ];
        row.extend(CpuStat::ALL.iter().map(|&stat| number(cpu.get(stat))));
        table.add_row(row);
    }
    table.trim_fmt()
}

fn cached(cpu: &Cpu) -> String {
    let names: Vec<_> = cpu.slots.iter().filter_map(|slot: &Slot| slot.cgroup.as_ref()).collect();
    if names.is_empty() {
        return "-".into();
    }
    names.into_iter().map(label).collect::<Vec<_>>().join(" ")
}

/// Its workload name, else its path.
pub(crate) fn label(name: &Name) -> String {
    name.workload.as_ref().map_or_else(|| place(name), ToString::to_string)
}

/// Its path, or its id if it was removed.
pub(crate) fn place(name: &Name) -> String {
    match name.path.as_deref() {
        Some(path) => display(path),
        None => format!("id {}", name.id),
    }
}

fn cgroups(sample: &Sample, page_size: u64) -> String {
    // Paths of containers are long: where they have names, the numbers come before the paths.
    let has_names = sample.cgroups.iter().any(|cgroup| cgroup.name.workload.is_some());
    let columns = std::iter::once("CGROUP".to_owned())
        .chain(COLUMNS.iter().map(|column| head(column.stat().name)))
        .chain(has_names.then(|| "PATH".to_owned()));
    let mut table = plain(columns, &[0, COLUMNS.len() + 1]);
    for cgroup in &sample.cgroups {
        let path = cgroup.name.workload.as_ref().map(|_| place(&cgroup.name));
        table.add_row(row(cgroup, page_size).into_iter().chain(path));
    }
    table.trim_fmt()
}

fn row(cgroup: &Cgroup, page_size: u64) -> Vec<String> {
    let show = |column: &Column| match (column.of(cgroup), column.stat().unit) {
        (None, _) if matches!(column, Column::Counter(PageCounterStat::Limit)) => "max".to_owned(),
        (Some(pages), Unit::Bytes) => human(pages * page_size),
        (value, _) => number(value),
    };
    let dying = if cgroup.is_dying { " (dying)" } else { "" };
    let mut row = vec![label(&cgroup.name) + dying];
    row.extend(COLUMNS.iter().map(show));
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::workload::{Kind, Workload};

    #[test]
    fn names_come_first_and_their_paths_last() {
        let cgroup = |id, path: &str, name: Option<&str>| {
            let unit = |name: &str| Workload {
                kind: Kind::Unit,
                name: name.into(),
                pod: None,
                namespace: None,
                container: None,
            };
            let workload = name.map(unit).map(Box::new);
            let name = Name { workload, ..Name::new(id, Some(path.into())) };
            Cgroup { name, ..Cgroup::default() }
        };
        let table = |cgroups| cgroups_of(&Sample { cgroups, ..Sample::default() });
        let plain = table(vec![cgroup(1, "/a", None), cgroup(2, "/b", None)]);
        assert!(plain[0].ends_with("FORCED") && plain[1].starts_with("/a "), "{plain:?}");
        let named = table(vec![cgroup(1, "/a", Some("a.service")), cgroup(2, "/b", None)]);
        assert!(named[0].ends_with("PATH") && named[1].starts_with("a.service "), "{named:?}");
        assert!(named[1].ends_with(" /a") && named[2].starts_with("/b "), "{named:?}");
        assert!(!named[2].ends_with("/b"), "{named:?}");
    }

    fn cgroups_of(sample: &Sample) -> Vec<String> {
        cgroups(sample, 4096).lines().map(str::to_owned).collect()
    }
}
