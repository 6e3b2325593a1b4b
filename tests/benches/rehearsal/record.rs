//! What one recording by memstock says of a program.

use std::fmt;
use std::process::Command;

use anyhow::{Result, ensure};
use memstock::forecast::recommend::{Advice, Wish};
use memstock::forecast::rehearse::{Rehearsal, WhatIf};
use memstock::recording;
use memstock_common::Loss;
use memstock_tests::binaries;
use memstock_tests::process::Program as Started;

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
    /// Of the largest process, as the run without a limit has it.
    pub max_rss: u64,
    /// From this limit on it is said to live.
    pub lives_from: u64,
    /// The limit that `memstock recommend` names.
    pub recommended: u64,
    /// What memstock says that it has lost; empty if nothing.
    pub loss: String,
    /// All of it.
    pub data: recording::Recording,
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [peak, needed, max] = [self.peak, self.needed, self.recommended].map(mib);
        write!(f, "peak {peak}, needed {needed}, recommended {max}")?;
        if self.loss.is_empty() { Ok(()) } else { write!(f, "; {}", self.loss) }
    }
}

/// How often a program is recorded anew since pages were moved meanwhile.
const RETRIES: u32 = 3;

/// Runs it once below `memstock record`, without a limit and with none of its files in the cache. Once more if memstock
/// says that pages were moved, which it does not see on every host: of those it lacks some then.
pub fn record(place: &Place, program: &Program) -> Result<Recording> {
    place.warm(program)?;
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
    let file = place.file("recording");
    let mut command = Command::new(binaries::memstock()?);
    place.enter(&mut command);
    command.arg("record").arg("--output").arg(&file);
    command.args(["--", "sh", "-c", program.script]);
    let finished = Started::from(command).finish(FREE)?;
    place.clear()?;
    ensure!(finished.code() == 0, "it ended with {}: {}", finished.code(), finished.stderr);
    let data = recording::read(&file)?;
    let rehearsal = Rehearsal::new(&data, WhatIf::default());
    let peaks = rehearsal.peaks();
    let lives_from = rehearsal.lives_from();
    let recommended = Advice::of(&[rehearsal], Wish::default()).max;
    let losses = data.end.iter().flat_map(|end| &end.lost).filter(|(_, count)| *count > 0);
    let losses: Vec<_> = losses.map(|(name, count)| format!("{name} {count}")).collect();
    Ok(Recording {
        loss: losses.join(", "),
        peak: peaks.usage,
        needed: peaks.needed,
        max_rss: 0,
        lives_from,
        recommended,
        data,
    })
}
