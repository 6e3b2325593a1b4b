//! What one recording by memstock says of a program.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memstock_common::Loss;
use memstock_tests::binaries;
use memstock_tests::measured::figure;
use memstock_tests::process::Program as Started;
use serde_json::Value;

use crate::oracle::FREE;
use crate::place::Place;
use crate::programs::Program;
use crate::table::mib;

/// In bytes.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The most that was charged.
    pub peak: u64,
    /// The most that could not have been taken back.
    pub needed: u64,
    /// Of the largest process; none if memstock cannot tell it from its own.
    pub max_rss: Option<u64>,
    /// What memstock says that it has lost; empty if nothing.
    pub loss: String,
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rss = self.max_rss.map_or("unknown".to_owned(), mib);
        write!(f, "peak {}, needed {}, largest RSS {rss}", mib(self.peak), mib(self.needed))?;
        if self.loss.is_empty() { Ok(()) } else { write!(f, "; {}", self.loss) }
    }
}

/// How often a program is recorded anew since pages were moved meanwhile.
const RETRIES: u32 = 3;

/// Runs it once below `memstock stat`, without a limit and with none of its files in the cache. Once more if memstock
/// says that pages were moved, which it does not see on every host: of those it lacks some then.
pub fn record(place: &Place, program: &Program) -> Result<Recording> {
    for _ in 0..RETRIES {
        let recording = record_once(place, program)?;
        if !recording.loss.contains(Loss::MovedUnseen.stat().name) {
            return Ok(recording);
        }
        eprintln!("{}: {recording}: again", program.name);
    }
    record_once(place, program)
}

fn record_once(place: &Place, program: &Program) -> Result<Recording> {
    place.refresh(program)?;
    let report = place.file("report.json");
    let mut command = Command::new(binaries::memstock()?);
    place.enter(&mut command);
    command.args(["stat", "--json", "--output"]).arg(&report);
    command.args(["--", "sh", "-c", program.script]);
    let finished = Started::from(command).finish(FREE)?;
    place.clear()?;
    ensure!(finished.code() == 0, "it ended with {}: {}", finished.code(), finished.stderr);
    let text = fs::read_to_string(&report).context("the report of memstock stat")?;
    let report = serde_json::from_str::<Value>(&text).context(text)?;
    let bytes = |pointer: &str| Ok::<_, anyhow::Error>(figure(&report, pointer)?.round() as u64);
    let losses = report["loss"].as_object().into_iter().flatten();
    let losses = losses.filter(|(_, count)| count.as_u64() != Some(0));
    let losses: Vec<_> = losses.map(|(name, count)| format!("{name} {count}")).collect();
    Ok(Recording {
        loss: losses.join(", "),
        peak: bytes("/cgroup/peak")?,
        needed: bytes("/cgroup/needed_peak")?,
        max_rss: report.pointer("/process/max_rss").and_then(Value::as_u64),
    })
}
