//! Records a program once with memstock.

use std::fmt;
use std::process::Command;

use anyhow::{Result, ensure};
use memstock::forecast::recommend::{Advice, Goal};
use memstock::forecast::rehearse::{Rehearsal, WhatIf};
use memstock::recording;
use memstock_common::Loss;
use memstock_tests::binaries;
use memstock_tests::process::Program as Started;

use crate::oracle::FREE;
use crate::place::Place;
use crate::programs::Program;
use crate::table::mib;

/// What a recording says of a program. All figures are bytes.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The most that was charged.
    pub peak: u64,
    /// The most that could not have been reclaimed.
    pub needed: u64,
    /// RSS of the largest process, from the run without a limit.
    pub max_rss: u64,
    /// The smallest limit at which it is predicted to live.
    pub lives_from: u64,
    /// The limit that `memstock recommend` gives.
    pub recommended: u64,
    /// The same without a margin for other loads.
    pub without_margin: u64,
    /// The losses that memstock reports; empty if none.
    pub loss: String,
    /// The recording itself.
    pub data: recording::Recording,
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [peak, needed, max] = [self.peak, self.needed, self.recommended].map(mib);
        write!(f, "peak {peak}, needed {needed}, recommended {max}")?;
        if self.loss.is_empty() { Ok(()) } else { write!(f, "; {}", self.loss) }
    }
}

/// How often to repeat a recording during which the kernel moved pages.
const RETRIES: u32 = 3;

/// Runs it once under `memstock record`, without a limit and with none of its files cached. Repeats it if memstock
/// reports moved pages that it did not see, as on some hosts, since the recording then lacks pages.
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
    let with =
        |margin| Advice::of(std::slice::from_ref(&rehearsal), Goal { margin, ..Goal::default() });
    let [recommended, without_margin] =
        [Goal::default().margin, 0.0].map(|margin| with(margin).max);
    let losses = data.end.iter().flat_map(|end| &end.lost).filter(|(_, count)| *count > 0);
    let losses: Vec<_> = losses.map(|(name, count)| format!("{name} {count}")).collect();
    Ok(Recording {
        loss: losses.join(", "),
        peak: peaks.usage,
        needed: peaks.needed,
        max_rss: 0,
        lives_from,
        recommended,
        without_margin,
        data,
    })
}
