//! What recorded charges would have cost with other batches and slots: as a table, and as JSON.

use std::collections::BTreeSet;
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::printable;
use crate::forecast::replay::{Outcome, Setting};
use crate::host::cgroup::display;
use crate::model::ratio::{hit_rate, operations_per_page};
use crate::model::size::human;
use crate::recording::{CHARGES, Charges, Recording};

/// A recording replayed with several settings.
#[derive(Debug)]
pub struct Replayed<'a> {
    /// The recording.
    pub recording: &'a Recording,
    /// Its charges.
    pub charges: &'a Charges,
    /// The outcome of each setting.
    pub rows: Vec<(Setting, Outcome)>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Document {
    /// The recorded command, control characters escaped; empty if an existing cgroup was recorded.
    command: Vec<String>,
    /// The setting it was recorded with.
    recorded: Recorded,
    /// CPUs on which something was charged.
    cpus: usize,
    /// Cgroups that were charged, and their ancestors.
    cgroups: usize,
    /// Charges missing from the recording; null if unknown, because it was cut short.
    lost: Option<u64>,
    /// The outcome of each setting.
    settings: Vec<Row>,
    /// Assumptions of the figures, one sentence each.
    assumes: Vec<String>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Recorded {
    /// Charged at once on a miss. Unit: pages.
    batch: u32,
    /// Stock slots per CPU.
    slots: u32,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Row {
    /// Charged at once on a miss. Unit: pages.
    batch: u32,
    /// Stock slots per CPU.
    slots: u32,
    /// Page faults.
    faults: u64,
    /// Charged on allocation. Unit: pages.
    charged_pages: u64,
    /// Those of them that needed no charge on the shared counters. Unit: pages.
    from_stock_pages: u64,
    /// The same in percent; null if nothing was charged.
    hit_rate: Option<f64>,
    /// Charges on the shared counters.
    charges: u64,
    /// Uncharges of freed pages on the shared counters.
    uncharges: u64,
    /// Times stocked pages were given back unused.
    drains: u64,
    /// The sum of these three.
    shared_operations: u64,
    /// The most that was charged but not in use at any time. Unit: bytes.
    stranded_peak: u64,
    /// Charged but not in use at the end. Unit: bytes.
    stranded_end: u64,
}

/// The document that `memstock replay --json` writes.
pub fn document(replayed: &Replayed<'_>) -> Value {
    let Replayed { recording, charges, rows } = replayed;
    let header = &recording.header;
    json!(Document {
        command: header.command.iter().map(|word| printable(word)).collect(),
        recorded: Recorded { batch: charges.batch, slots: charges.slots },
        cpus: cpus(charges),
        cgroups: charges.cgroups.len(),
        lost: lost(recording),
        settings: rows.iter().map(|row| self::row(recording, row)).collect(),
        assumes: assumes(recording).iter().map(|it| printable(it)).collect(),
    })
}

fn row(recording: &Recording, &(setting, outcome): &(Setting, Outcome)) -> Row {
    let Setting { batch, slots } = setting;
    let Outcome { faults, charged, from_stock, charges, uncharges, drains, .. } = outcome;
    Row {
        batch,
        slots,
        faults,
        charged_pages: charged,
        from_stock_pages: from_stock,
        hit_rate: hit_rate(from_stock as f64, charged as f64),
        charges,
        uncharges,
        drains,
        shared_operations: outcome.shared_operations(),
        stranded_peak: bytes(recording, outcome.stranded_peak),
        stranded_end: bytes(recording, outcome.stranded_end),
    }
}

fn bytes(recording: &Recording, pages: u64) -> u64 {
    pages.saturating_mul(recording.header.page_size.into())
}

fn cpus(charges: &Charges) -> usize {
    charges.events.iter().map(|charge| charge.cpu).collect::<BTreeSet<_>>().len()
}

/// Charges that found no room when they were recorded; `None` if the recording does not say.
fn lost(recording: &Recording) -> Option<u64> {
    let end = recording.end.as_ref()?;
    let lost = end.lost.iter().find(|(name, _)| name == CHARGES);
    Some(lost.map_or(0, |&(_, count)| count))
}

/// The assumptions of the figures, losses first.
fn assumes(recording: &Recording) -> Vec<String> {
    let first = match lost(recording) {
        Some(0) => None,
        Some(1) => {
            Some("1 charge was lost during recording and is missing from the figures.".into())
        }
        Some(lost) => Some(format!(
            "{lost} charges were lost during recording and are missing from the figures."
        )),
        None => Some("The recording was cut short: the figures end there.".into()),
    };
    let about = |it: &&String| it.starts_with("Charges: ");
    let own = "No limit is set, and no reclaim drains.".to_owned();
    first
        .into_iter()
        .chain([own])
        .chain(recording.header.assumes.iter().filter(about).cloned())
        .collect()
}

/// Writes a summary of the recording, then the table.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, replayed: &Replayed<'_>) -> io::Result<()> {
    let Replayed { recording, charges, rows } = replayed;
    writeln!(out, "{}\n", about(recording, charges))?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "batch",
        "slots",
        "hits",
        "shared operations",
        "per page",
        "drains",
        "stranded",
        "at the end",
    ]);
    for (setting, outcome) in rows {
        let (from_stock, charged) = (outcome.from_stock as f64, outcome.charged as f64);
        let operations = outcome.shared_operations();
        let of_page = operations_per_page(operations as f64, charged);
        table.add_row([
            setting.batch.to_string(),
            setting.slots.to_string(),
            hit_rate(from_stock, charged).map_or("-".into(), |rate| format!("{rate:.2} %")),
            operations.to_string(),
            of_page.map_or("-".into(), |ratio| format!("{ratio:.4}")),
            outcome.drains.to_string(),
            human(bytes(recording, outcome.stranded_peak)),
            human(bytes(recording, outcome.stranded_end)),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)?;
    for (n, assumption) in assumes(recording).iter().enumerate() {
        let title = if n == 0 { "assumes" } else { "" };
        writeln!(out, "{title:<9}  {}", printable(assumption))?;
    }
    Ok(())
}

/// `make: 12345 charges and uncharges of 3 cgroups on 2 CPUs, recorded with batch 32 and 1 slot`.
fn about(recording: &Recording, charges: &Charges) -> String {
    let header = &recording.header;
    let what = match header.command.as_slice() {
        [] => display(&header.cgroup),
        words => printable(&words.join(" ")),
    };
    let several = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    };
    format!(
        "{what}: {} of {} on {}, recorded with batch {} and {}",
        several(charges.events.len(), "event"),
        several(charges.cgroups.len(), "cgroup"),
        several(cpus(charges), "CPU"),
        charges.batch,
        several(charges.slots as usize, "slot"),
    )
}

#[cfg(test)]
mod tests;
