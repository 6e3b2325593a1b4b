//! The page: both pictures, the figures behind them, and a script to move the limit. It loads nothing from elsewhere,
//! and its policy forbids that.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::Report;
use super::pictures::{self, Frame};
use super::time::{self, Part};
use crate::exit::printable;
use crate::forecast::assume::{assumes, warnings};
use crate::forecast::rehearse::SLOW;
use crate::forecast::timeline::PARTS;
use crate::view::show::rehearse::{COLUMNS, about, cells, document, reason, setting};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the script needs besides the document of `memstock rehearse --json`; in bytes and seconds.
#[derive(Serialize)]
struct Facts {
    frame: Frame,
    /// The highest value in the picture.
    scale: u64,
    end: f64,
    lives_from: u64,
    fits_from: u64,
    /// Usage and need in each part of the time.
    parts: Vec<[u64; 2]>,
    /// For each limit in the document, the parts of the time in which the run would be slow.
    slow: Vec<Vec<usize>>,
    /// Where the line starts.
    limit: u64,
}

pub fn page(report: &Report<'_>) -> Result<String> {
    let rehearsal = report.rehearsal();
    let parts = time::parts(rehearsal);
    let (time, frame, scale) = pictures::time(report, &parts)?;
    let facts = Facts {
        frame,
        scale,
        end: report.end().as_secs_f64(),
        lives_from: rehearsal.lives_from(),
        fits_from: rehearsal.fits_from(),
        parts: parts.iter().map(|&Part { usage, needed, .. }| [usage, needed]).collect(),
        slow: report.rows().iter().map(|row| slow(report, &row.reread_by_time)).collect(),
        limit: report.judged.advice.max,
    };
    let advice = &report.judged.advice;
    let warnings = warnings(rehearsal.recording).into_iter();
    let fill = [
        ("style", STYLE.to_owned()),
        ("title", escaped(&about(rehearsal))),
        ("advice", escaped(&setting(advice))),
        ("reason", escaped(&reason(advice))),
        ("limits", pictures::limits(report)?),
        ("time", time),
        ("columns", COLUMNS.map(|column| format!("<th>{column}</th>")).concat()),
        ("rows", rows(report)),
        ("inputs", inputs(report)),
        (
            "warnings",
            list(&warnings.map(|warning| format!("warning: {warning}")).collect::<Vec<_>>()),
        ),
        ("assumes", list(&assumes(rehearsal))),
        ("rehearsal", json(&document(&report.judged))),
        ("facts", json(&serde_json::to_value(&facts)?)),
        ("script", SCRIPT.to_owned()),
    ];
    // One pass, so that inserted text is never taken for a placeholder.
    let mut page = String::new();
    let mut rest = PAGE;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (name, after) = behind.split_once("}}").unwrap_or((behind, ""));
        page += before;
        page += fill.iter().find(|(other, _)| *other == name).map_or("", |(_, text)| text);
        rest = after;
    }
    Ok(page + rest)
}

/// The parts of the time in which reading again takes longer than [`SLOW`] allows.
fn slow(report: &Report<'_>, reread: &[u64]) -> Vec<usize> {
    let part = report.end().as_secs_f64() / PARTS as f64;
    let is_slow = |bytes: u64| report.rehearsal().seconds_to_read(bytes) > SLOW * part;
    let all = reread.iter().enumerate();
    all.filter(|&(_, &bytes)| bytes > 0 && is_slow(bytes)).map(|(n, _)| n).collect()
}

/// Escapes JSON for a script element, where only its end tag is special.
fn json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

fn list(items: &[String]) -> String {
    items.iter().map(|item| format!("<li>{}</li>\n", escaped(&printable(item)))).collect()
}

/// The limits at which the verdict or the victim changes.
fn rows(report: &Report<'_>) -> String {
    let recording = report.rehearsal().recording;
    let mut text = String::new();
    let mut before = None;
    for row in report.rows() {
        let victim = row.victim.as_ref().map(|victim| (victim.at, victim.task.clone()));
        let now = (row.verdict, row.is_near, victim);
        if before.as_ref() == Some(&now) {
            continue;
        }
        let cells = cells(recording, row).map(|cell| format!("<td>{}</td>", escaped(&cell)));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "<tr class=\"{}\">{}</tr>", row.verdict.name(), cells.concat());
        before = Some(now);
    }
    text
}

/// Where and how the recording was made.
fn inputs(report: &Report<'_>) -> String {
    let recording = report.rehearsal().recording;
    let header = &recording.header;
    let mut rows = vec![
        ("host", printable(&header.host)),
        ("kernel", printable(&header.kernel)),
        ("memstock", printable(&header.version)),
        ("cgroup", crate::host::cgroup::display(&header.cgroup)),
        ("CPUs", header.cpus.to_string()),
        ("transparent huge pages", printable(&header.thp)),
        ("samples", recording.moments.len().to_string()),
        ("accesses to page cache", recording.accesses.len().to_string()),
        ("one page stands for", recording.accesses.first().map_or(1, |one| one.one_in).to_string()),
    ];
    let lost = recording.end.iter().flat_map(|end| &end.lost).filter(|(_, count)| *count > 0);
    let lost: Vec<_> = lost.map(|(name, count)| format!("{} {count}", printable(name))).collect();
    rows.push(("lost", if lost.is_empty() { "nothing".into() } else { lost.join(", ") }));
    if let Some(name) = &header.name {
        rows.push(("name", name.to_string()));
    }
    let row = |(name, value): &(&str, String)| {
        format!("<tr><th>{name}</th><td>{}</td></tr>\n", escaped(value))
    };
    rows.iter().map(row).collect()
}
