//! What limits would do to a recorded run: as a table, and as JSON.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::printable;
use crate::forecast::assume::{assumes, warnings};
use crate::forecast::recommend::Advice;
use crate::forecast::rehearse::{Kernel, Rehearsal, Row, Victim, page_size};
use crate::forecast::verdict::Verdict;
use crate::host::cgroup::display;
use crate::host::workload::Workload;
use crate::model::size::{human, human_up};
use crate::recording::{Lru, Recording};

/// Rows of the table between the limit at which everything fits and the one below which a process is killed.
const BETWEEN: usize = 5;

/// A recording judged at several limits.
#[derive(Debug)]
pub struct Judged<'a> {
    /// The recording.
    pub rehearsal: &'a Rehearsal<'a>,
    /// One verdict per limit.
    pub rows: Vec<Row>,
    /// What to set.
    pub advice: Advice,
}

impl Judged<'_> {
    /// Judges the limits shown by default: from where everything fits down to where a process is killed.
    pub fn table(rehearsal: &Rehearsal<'_>) -> Vec<Row> {
        let mut limits = rehearsal.between(BETWEEN);
        let dies = rehearsal.peaks().needed.saturating_sub(page_size(rehearsal.recording));
        if !rehearsal.what_if.is_high && dies > 0 {
            limits.insert(0, dies);
        }
        limits.iter().rev().map(|&limit| rehearsal.judge(limit)).collect()
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Document {
    /// The recorded command, control characters escaped; empty if an existing cgroup was recorded.
    command: Vec<String>,
    /// The path of the recorded cgroup; that of a command no longer exists.
    cgroup_path: String,
    /// Workload name of the recorded cgroup, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Workload>,
    /// The most that was used. Unit: bytes.
    peak: u64,
    /// The most that could not be reclaimed. Unit: bytes.
    needed_peak: u64,
    /// What each limit would do.
    limits: Vec<Limit>,
    /// What to set, for a run at most 5 % slower, with 10 % added.
    recommend: Set,
    /// Why it may need more than was recorded, one sentence each.
    warnings: Vec<String>,
    /// Assumptions of the verdicts, one sentence each.
    assumes: Vec<String>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Set {
    /// The limit. Unit: bytes.
    pub(crate) max: u64,
    /// Where reclaim may begin. Unit: bytes.
    pub(crate) high: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Limit {
    /// Unit: bytes.
    limit: u64,
    #[serde(rename = "verdict")]
    #[cfg_attr(test, schemars(schema_with = "super::schema::verdict"))]
    verdict: &'static str,
    /// Whether runs at this limit can differ: the verdict is oom, but a run may survive.
    near: bool,
    /// Read again from disk, if the run survives; null if it cannot, or if unknown. Unit: bytes.
    reread: Option<u64>,
    /// Additional run time, as a fraction of the recording's; null as above.
    slowdown: Option<f64>,
    /// The files that are read again most.
    files: Vec<FileRead>,
    /// Mapped files for which there is no room. Unit: bytes.
    unmapped: u64,
    /// Dirty page cache whose writeback is waited for. Unit: bytes.
    dirty: u64,
    /// How long tasks are throttled at memory.high. Unit: seconds.
    throttled: f64,
    /// The process that is killed first; null if none is.
    victim: Option<Killed>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct FileRead {
    /// Its path, or its device and inode.
    path: String,
    /// Read again. Unit: bytes.
    bytes: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Killed {
    /// When. Unit: seconds since the start.
    at: f64,
    /// Its process id; null, like its name, if no process was seen.
    pid: Option<u32>,
    /// Its name.
    comm: Option<String>,
    /// Its anonymous memory. Unit: bytes.
    anon: Option<u64>,
}

/// The document that `memstock rehearse --json` writes.
pub fn document(judged: &Judged<'_>) -> Value {
    let Judged { rehearsal, rows, advice } = judged;
    let peaks = rehearsal.peaks();
    json!(Document {
        command: rehearsal.recording.header.command.iter().map(|word| printable(word)).collect(),
        cgroup_path: display(&rehearsal.recording.header.cgroup),
        name: rehearsal.recording.header.name.clone(),
        peak: peaks.usage,
        needed_peak: peaks.needed,
        limits: rows.iter().map(|row| limit(rehearsal.recording, row)).collect(),
        recommend: Set { max: advice.max, high: advice.high },
        warnings: warnings(rehearsal.recording),
        assumes: assumes(rehearsal),
    })
}

fn limit(recording: &Recording, row: &Row) -> Limit {
    let file = |&(file, bytes): &(u32, u64)| FileRead { path: name(recording, file), bytes };
    let killed = |Victim { at, task }: &Victim| Killed {
        at: at.as_secs_f64(),
        pid: task.as_ref().map(|(pid, ..)| *pid),
        comm: task.as_ref().map(|(_, comm, _)| printable(comm)),
        anon: task.as_ref().map(|(.., anon)| *anon),
    };
    Limit {
        limit: row.limit,
        verdict: row.verdict.name(),
        near: row.is_near,
        reread: row.reread,
        slowdown: row.slowdown,
        files: row.files.iter().map(file).collect(),
        unmapped: row.unmapped,
        dirty: row.dirty,
        throttled: row.throttled.as_secs_f64(),
        victim: row.victim.as_ref().map(killed),
    }
}

/// A file's path, or its device and inode.
fn name(recording: &Recording, file: u32) -> String {
    match recording.files.get(file as usize) {
        Some(file) => match &file.path {
            Some(path) => display(path),
            None => format!("inode {} of device {}", file.inode, file.device),
        },
        None => format!("file {file}"),
    }
}

/// Writes a summary of the recording, the table, and what to set.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, judged: &Judged<'_>) -> io::Result<()> {
    let Judged { rehearsal, rows, advice } = judged;
    writeln!(out, "{}\n", about(rehearsal))?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(COLUMNS);
    for row in rows {
        table.add_row(cells(rehearsal.recording, row));
    }
    for column in [0, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "\nrecommend  {}", setting(advice))?;
    writeln!(out, "           {}", reason(advice))?;
    let all = [("warning", warnings(rehearsal.recording)), ("assumes", assumes(rehearsal))];
    for (title, sentences) in all {
        for (n, sentence) in sentences.iter().enumerate() {
            writeln!(out, "{:<9}  {}", if n == 0 { title } else { "" }, printable(sentence))?;
        }
    }
    Ok(())
}

/// The columns of the table of limits.
pub(crate) const COLUMNS: [&str; 5] = ["limit", "verdict", "read again", "slower", "why"];

/// What a limit would do, for [`COLUMNS`].
pub(crate) fn cells(recording: &Recording, row: &Row) -> [String; 5] {
    // A figure copied from here does what is said of it.
    let limit = if row.verdict == Verdict::Oom { human(row.limit) } else { human_up(row.limit) };
    let verdict = if row.is_near { "oom, near" } else { row.verdict.name() };
    let is_told = row.verdict != Verdict::Fits;
    let reread = row.reread.filter(|_| is_told).map_or("-".into(), human);
    let slower = row.slowdown.filter(|_| is_told).map_or("-".into(), percent);
    [limit, verdict.into(), reread, slower, why(recording, row)]
}

/// `make -j4: peak 803.0MiB, of which 322.0MiB cannot be reclaimed; Linux 6.18, active and inactive lists, 41.2 s`.
pub(crate) fn about(rehearsal: &Rehearsal<'_>) -> String {
    let header = &rehearsal.recording.header;
    let what = match header.command.as_slice() {
        [] => header.name.as_ref().map_or_else(|| display(&header.cgroup), ToString::to_string),
        words => printable(&words.join(" ")),
    };
    let peaks = rehearsal.peaks();
    let lru = match rehearsal.lru() {
        _ if rehearsal.what_if.kernel == Kernel::Lru => "an ideal LRU",
        Lru::Classic => "active and inactive lists",
        Lru::MultiGen => "generations",
    };
    format!(
        "{what}: peak {}, of which {} cannot be reclaimed; Linux {}, {lru}, {:.1} s",
        human_up(peaks.usage),
        human_up(peaks.needed),
        printable(&header.kernel),
        rehearsal.timeline.end.as_secs_f64()
    )
}

/// What causes a verdict.
fn why(recording: &Recording, row: &Row) -> String {
    let mut parts = Vec::new();
    if row.is_near {
        parts.push("so close to what is needed that it may survive".to_owned());
    }
    if let Some(Victim { at, task }) = &row.victim {
        let who = match task {
            Some((pid, comm, anon)) => {
                format!("{} ({pid}), {} anonymous", printable(comm), human(*anon))
            }
            None => "unknown process".to_owned(),
        };
        parts.push(format!("{who}, at {:.1} s", at.as_secs_f64()));
    }
    if row.verdict == Verdict::Oom {
        return parts.join("; ");
    }
    let files = row
        .files
        .iter()
        .map(|&(file, bytes)| format!("{} {}", name(recording, file), human(bytes)));
    parts.extend(files);
    if row.unmapped > 0 {
        parts.push(format!("no room for {} of mapped files", human(row.unmapped)));
    }
    if row.dirty > 0 {
        parts.push(format!("waits for {} to be written", human(row.dirty)));
    }
    if !row.throttled.is_zero() {
        parts.push(format!("throttled for {:.1} s", row.throttled.as_secs_f64()));
    }
    parts.join(", ")
}

/// `MemoryMax=410M MemoryHigh=380M`.
pub(crate) fn setting(advice: &Advice) -> String {
    format!("MemoryMax={}M MemoryHigh={}M", advice.max >> 20, advice.high >> 20)
}

/// What the recommended limits are made up of.
pub(crate) fn reason(advice: &Advice) -> String {
    let fast = match advice.fast_from > advice.lives_from {
        true => format!(", {} for speed", human_up(advice.fast_from)),
        false => String::new(),
    };
    let Advice { needed, lives_from, peak, .. } = *advice;
    format!(
        "{} needed, {} with what cannot be seen{fast}; the peak was {}",
        human_up(needed),
        human_up(lives_from),
        human_up(peak)
    )
}

/// Formats a slowdown, given as a fraction.
pub(super) fn percent(part: f64) -> String {
    match part * 100.0 {
        much if much >= 1000.0 => format!("{:.0} times", part + 1.0),
        some if some >= 10.0 => format!("{some:.0} %"),
        little => format!("{little:.1} %"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
