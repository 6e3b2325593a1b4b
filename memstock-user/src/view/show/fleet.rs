//! Recommended limits for many cgroups: as a table, those at risk first, and as JSON.

use std::cmp::Reverse;
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::json;

use super::rehearse::Set;
use crate::exit::printable;
use crate::forecast::recommend::Advice;
use crate::forecast::verdict::{Peaks, Verdict};
use crate::model::size::{human, human_up};

/// A cgroup, over all hosts that have it.
#[derive(Debug)]
pub struct Service {
    /// Its path.
    pub cgroup: String,
    /// How many hosts have it.
    pub hosts: u64,
    /// The highest figures on any of them.
    pub peaks: Peaks,
    /// Its lowest current limit, in bytes.
    pub limit: Option<u64>,
    /// What to set.
    pub advice: Advice,
}

impl Service {
    fn verdict(&self) -> Option<Verdict> {
        Some(self.peaks.at(self.limit?))
    }

    /// Bytes by which the limit would be lowered; negative if it would be raised.
    fn saving(&self) -> Option<i128> {
        Some(i128::from(self.limit?) - i128::from(self.advice.max))
    }
}

/// Those at risk first, then those that would save most.
fn sorted(services: &[Service]) -> Vec<&Service> {
    let mut all: Vec<_> = services.iter().collect();
    all.sort_by_key(|service| {
        let risk = service.verdict().filter(|&verdict| verdict <= Verdict::Near);
        (risk.is_none(), risk, Reverse(service.saving()), &service.cgroup)
    });
    all
}

/// Writes a table with a row for each service.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, window: &str, services: &[Service]) -> io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "cgroup",
        "limit now",
        "to set",
        "saves",
        "needed",
        "peak",
        "verdict",
        "hosts",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for service in sorted(services) {
        let none = || "-".to_owned();
        table.add_row([
            printable(&service.cgroup),
            service.limit.map_or_else(none, human),
            human(service.advice.max),
            service.saving().map_or_else(none, saving),
            human_up(service.peaks.needed),
            human_up(service.peaks.usage),
            service.verdict().map_or("no limit", Verdict::name).to_owned(),
            service.hosts.to_string(),
        ]);
    }
    writeln!(out, "{}", table.trim_fmt())?;
    writeln!(
        out,
        "\nPeaks since each cgroup was tracked, of those scraped in the last {window}. Metrics do not show what would be read \
         again at a limit: use \"memstock record\"."
    )
}

fn saving(bytes: i128) -> String {
    let size = human(u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX));
    if bytes < 0 { format!("-{size}") } else { size }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Document {
    /// Cgroups scraped within this time, as Prometheus writes it, are included; their peaks are since each was tracked.
    window: String,
    /// Those at risk at their limit first, then those that would save most.
    cgroups: Vec<Entry>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Entry {
    /// Its path.
    cgroup: String,
    /// How many hosts have it.
    hosts: u64,
    /// The most that could not be reclaimed, on any of them. Unit: bytes.
    needed_peak: u64,
    /// The most that was used, on any of them. Unit: bytes.
    peak: u64,
    /// Its lowest current limit; null without one. Unit: bytes.
    limit: Option<u64>,
    /// What happens at that limit; null without one.
    #[cfg_attr(test, schemars(schema_with = "super::schema::verdict_or_none"))]
    verdict: Option<&'static str>,
    /// What to set.
    recommend: Set,
}

/// Writes the table's figures as JSON.
///
/// # Errors
/// `out` cannot be written.
pub fn json(out: &mut dyn Write, window: &str, services: &[Service]) -> io::Result<()> {
    let cgroups = sorted(services).into_iter().map(|service| Entry {
        cgroup: service.cgroup.clone(),
        hosts: service.hosts,
        needed_peak: service.peaks.needed,
        peak: service.peaks.usage,
        limit: service.limit,
        verdict: service.verdict().map(Verdict::name),
        recommend: Set { max: service.advice.max, high: service.advice.high },
    });
    let document = Document { window: window.to_owned(), cgroups: cgroups.collect() };
    writeln!(out, "{:#}", json!(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn service(cgroup: &str, limit: Option<u64>, needed: u64) -> Service {
        let peaks = Peaks::of(2 * needed * MIB, needed * MIB);
        let limit = limit.map(|mib| mib * MIB);
        Service {
            cgroup: cgroup.into(),
            hosts: 3,
            peaks,
            limit,
            advice: Advice::by_peaks(peaks, 0.1),
        }
    }

    #[test]
    fn those_at_risk_come_first() {
        let services = [
            service("/free", None, 100),
            service("/rich", Some(1000), 100),
            service("/poor", Some(90), 100),
            service("/fair", Some(200), 100),
        ];
        let mut out = Vec::new();
        write(&mut out, "14d", &services).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("since each cgroup was tracked, of those scraped in the last 14d"));
        let rows: Vec<Vec<_>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows[1],
            ["/poor", "90.0MiB", "110.0MiB", "-20.0MiB", "100.0MiB", "200.0MiB", "oom", "3"]
        );
        assert_eq!(
            rows[2],
            ["/rich", "1000.0MiB", "110.0MiB", "890.0MiB", "100.0MiB", "200.0MiB", "fits", "3"]
        );
        assert_eq!(rows[3][0], "/fair");
        assert_eq!(rows[4][..3], ["/free", "-", "110.0MiB"]);
    }
}
