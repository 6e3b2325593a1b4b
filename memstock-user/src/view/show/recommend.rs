//! Recommended limits: as text with reasons, and as Kubernetes, systemd and JSON configuration.

use std::collections::HashSet;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::rehearse::{Set, about, reason, setting};
use crate::exit::printable;
use crate::forecast::assume::{assumes, warnings};
use crate::forecast::recommend::{Advice, Goal};
use crate::forecast::rehearse::Rehearsal;

/// A recommendation and what it is based on.
#[derive(Debug)]
pub struct Recommended<'a> {
    /// The recordings that it is based on.
    pub rehearsals: &'a [Rehearsal<'a>],
    /// What it was to achieve.
    pub goal: Goal,
    /// What to set.
    pub advice: Advice,
}

impl Recommended<'_> {
    /// The assumptions of all recordings, without duplicates.
    fn assumes(&self) -> Vec<String> {
        once_each(self.rehearsals.iter().flat_map(assumes))
    }

    /// Reasons to verify the limits before setting them.
    fn warnings(&self) -> Vec<String> {
        once_each(self.rehearsals.iter().flat_map(|one| warnings(one.recording)))
    }
}

fn once_each(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    all.filter(|sentence| seen.insert(sentence.clone())).collect()
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Document {
    /// What to set.
    recommend: Set,
    /// The most that could not be reclaimed, over all recordings. Unit: bytes.
    needed_peak: u64,
    /// The same, plus what a recording cannot see. Unit: bytes.
    lives_from: u64,
    /// The smallest limit at which it is no slower than allowed. Unit: bytes.
    fast_from: u64,
    /// The most that was used. Unit: bytes.
    peak: u64,
    /// How many recordings there are.
    recordings: usize,
    /// Why it may need more than was recorded, one sentence each.
    warnings: Vec<String>,
    /// Assumptions, one sentence each.
    assumes: Vec<String>,
}

/// The document that `memstock recommend --format json` writes.
pub fn document(recommended: &Recommended<'_>) -> Value {
    let Advice { max, high, needed, lives_from, fast_from, peak } = recommended.advice;
    json!(Document {
        recommend: Set { max, high },
        needed_peak: needed,
        lives_from,
        fast_from,
        peak,
        recordings: recommended.rehearsals.len(),
        warnings: recommended.warnings(),
        assumes: recommended.assumes(),
    })
}

/// Writes the limits with their reasons.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, recommended: &Recommended<'_>) -> io::Result<()> {
    let Recommended { rehearsals, goal, advice } = recommended;
    for rehearsal in *rehearsals {
        writeln!(out, "{}", about(rehearsal))?;
    }
    writeln!(out, "\nMemoryMax={}M", advice.max >> 20)?;
    writeln!(out, "MemoryHigh={}M\n", advice.high >> 20)?;
    writeln!(out, "because  {}", reason(advice))?;
    // Rounded to hundredths of a percent, because 0.07 * 100 is not 7.
    let [slower, margin] = [goal.slower, goal.margin].map(|part| (part * 1e4).round() / 100.0);
    if rehearsals.iter().any(Rehearsal::is_blind) {
        write!(out, "         how much slower is not known")?;
    } else {
        write!(out, "         at most {slower} % slower")?;
    }
    let base = advice.needed as f64 * (1.0 + goal.margin);
    let is_unseen_more = advice.fast_from <= advice.lives_from && advice.lives_from as f64 > base;
    if is_unseen_more && margin > 0.0 {
        writeln!(
            out,
            "; nothing is added for other loads: what cannot be seen is more than {margin} %"
        )?;
    } else {
        writeln!(out, ", and {margin} % added for other loads")?;
    }
    for (title, sentences) in
        [("warning", recommended.warnings()), ("assumes", recommended.assumes())]
    {
        for (n, sentence) in sentences.iter().enumerate() {
            writeln!(out, "{:<7}  {}", if n == 0 { title } else { "" }, printable(sentence))?;
        }
    }
    Ok(())
}

/// Writes a container's resources: `high` as the request, `max` as the limit.
///
/// # Errors
/// `out` cannot be written.
pub fn yaml(out: &mut dyn Write, recommended: &Recommended<'_>) -> io::Result<()> {
    notes(out, recommended)?;
    let Advice { max, high, .. } = recommended.advice;
    writeln!(out, "resources:\n  requests:\n    memory: {}Mi", high >> 20)?;
    writeln!(out, "  limits:\n    memory: {}Mi", max >> 20)
}

/// Writes a drop-in for a systemd unit.
///
/// # Errors
/// `out` cannot be written.
pub fn systemd(out: &mut dyn Write, recommended: &Recommended<'_>) -> io::Result<()> {
    notes(out, recommended)?;
    writeln!(out, "[Service]\n{}", setting(&recommended.advice).replace(' ', "\n"))
}

/// The reason and warnings, as comments.
fn notes(out: &mut dyn Write, recommended: &Recommended<'_>) -> io::Result<()> {
    writeln!(out, "# memstock: {}", reason(&recommended.advice))?;
    for warning in recommended.warnings() {
        writeln!(out, "# {}", printable(&warning))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
