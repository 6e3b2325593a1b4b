//! The reports of `memstock stat --json`, and how the figures of two runs differ.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::binaries;
use crate::poll::SOON;
use crate::process::{Finished, memstock};

/// Runs `memstock stat --json` with these arguments.
///
/// # Errors
/// When it writes no JSON.
pub fn stat(args: &[&str]) -> Result<(Value, Finished)> {
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().to_str().context("a path that is not UTF-8")?;
    let all = [&["stat", "--json", "--output", path], args].concat();
    let finished = memstock(all)?.finish(3 * SOON)?;
    let text = fs::read_to_string(file.path())?;
    let report = serde_json::from_str(&text).with_context(|| format!("{text}: {finished:?}"))?;
    Ok((report, finished))
}

/// Runs `memstock stat` with these flags on a hog that touches `nr_pages` on CPU 1 and ends. Returns the report.
///
/// # Errors
/// When it fails.
pub fn hog(nr_pages: u64, flags: &[&str]) -> Result<Value> {
    let workload = binaries::workload()?.display().to_string();
    let pages = nr_pages.to_string();
    let command = ["--", &workload, "hog", "--pages", &pages, "--cpu", "1"];
    let (report, finished) = stat(&[flags, &command].concat())?;
    ensure!(finished.code() == 0 && finished.stdout == "done\n", "{finished:?}");
    Ok(report)
}

/// A figure of a report, such as `/cgroup/faults`.
///
/// # Errors
/// When the report does not have it.
pub fn figure(report: &Value, pointer: &str) -> Result<f64> {
    report
        .pointer(pointer)
        .and_then(Value::as_f64)
        .with_context(|| format!("{pointer}: {report:#}"))
}

/// Checks that a figure grew by `expected`, give or take `tolerance`.
///
/// # Errors
/// When it did not.
pub fn grew(few: &Value, many: &Value, pointer: &str, expected: u64, tolerance: u64) -> Result<()> {
    let by = figure(many, pointer)? - figure(few, pointer)?;
    ensure!(
        (by - expected as f64).abs() <= tolerance as f64,
        "{pointer} grew by {by}, not by {expected} ± {tolerance}: {few:#} {many:#}"
    );
    Ok(())
}
