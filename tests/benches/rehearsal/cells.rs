//! A program at one limit: which limits to try, what happened, and what was predicted.

use anyhow::Result;
use memstock::forecast::rehearse::SLOW;
use memstock_tests::PAGE;

use crate::oracle::Run;
use crate::record::Recording;
use crate::rules::{MEMSTOCK, RULES, Rule};

/// Predictions for limits this near to the boundary do not count: there, runs differ among themselves.
pub const NEAR_PART: f64 = 0.03;
/// The minimum for small boundaries: some MiB are in the CPUs' stocks and batches.
pub const NEAR_BYTES: f64 = (2 << 20) as f64;

/// How far from `boundary` counts as near, in bytes.
pub fn near(boundary: u64) -> u64 {
    (NEAR_PART * boundary as f64).max(NEAR_BYTES) as u64
}

/// A limit, and why it is tried.
#[derive(Clone, Debug)]
pub struct Limit {
    pub name: &'static str,
    pub bytes: u64,
}

impl Limit {
    /// At least eight limits, three of them within 5 % of what is needed (within 3 MiB if that is small), and those
    /// that the rules recommend.
    pub fn all(recording: &Recording) -> Vec<Self> {
        let &Recording { peak, needed, .. } = recording;
        let (of_needed, of_peak) = (|part: f64| times(needed, part), |part: f64| times(peak, part));
        let aside = 4 * near(needed) / 3;
        let recommended = RULES.iter().map(|rule| (rule.name, (rule.lives_from)(recording)));
        let others = [
            ("needed", needed),
            ("needed - 4 %", needed.saturating_sub(aside)),
            ("needed + 4 %", needed + aside),
            ("0.9 needed", of_needed(0.9)),
            ("0.8 needed", of_needed(0.8)),
            ("0.5 needed", of_needed(0.5)),
            ("middle", needed.midpoint(peak)),
            ("0.95 peak", of_peak(0.95)),
            ("1.3 needed", of_needed(1.3)),
            ("0.65 needed", of_needed(0.65)),
        ];
        let mut limits = Vec::<Self>::new();
        for (n, (name, bytes)) in recommended.chain(others).enumerate() {
            let bytes = bytes.next_multiple_of(PAGE);
            let is_new = limits.iter().all(|known| known.bytes.abs_diff(bytes) > bytes / 250);
            // Below that, the kernel has not even room for a process's own structures.
            if (n < RULES.len() || is_new) && bytes >= 64 * PAGE {
                limits.push(Self { name, bytes });
            }
        }
        limits.sort_by_key(|limit| limit.bytes);
        limits
    }

    /// One limit well below what is needed, two a little above, and the peak.
    pub fn few(recording: &Recording) -> Vec<Self> {
        let few = ["0.8 needed", MEMSTOCK.name, "needed + 4 %", "peak"];
        Self::all(recording).into_iter().filter(|limit| few.contains(&limit.name)).collect()
    }
}

fn times(bytes: u64, part: f64) -> u64 {
    (bytes as f64 * part) as u64
}

/// A limit and the runs at it.
#[derive(Clone, Debug)]
pub struct Cell {
    pub limit: Limit,
    pub runs: Vec<Run>,
    /// A run without a limit after those that lived, for comparison: the disk's speed varies.
    pub free: Option<Run>,
}

impl Cell {
    /// Runs the program at `limit`: once if it should die there, else `repeats` times or until it dies.
    pub fn fill(
        limit: Limit,
        recording: &Recording,
        repeats: usize,
        run: impl Fn(Option<u64>) -> Result<Run>,
    ) -> Result<Self> {
        let is_far = limit.bytes + near(recording.needed) < recording.needed;
        let times = if is_far { 1 } else { repeats };
        let mut runs = Vec::<Run>::new();
        while runs.len() < times && runs.iter().all(Run::lived) {
            runs.push(run(Some(limit.bytes))?);
        }
        let free = runs.iter().all(Run::lived).then(|| run(None)).transpose()?;
        Ok(Self { limit, runs, free })
    }

    /// Whether its fastest run took longer than the one without a limit beside it, by more than is allowed.
    pub fn seems_slow(&self) -> bool {
        let fastest = self.runs.iter().map(|run| run.wall).min();
        let free = self.free.as_ref().map(|run| run.wall);
        fastest.zip(free).is_none_or(|(with, free)| with > free.mul_f64(1.0 + SLOW))
    }

    /// Whether it lived in every run.
    pub fn lived(&self) -> bool {
        self.runs.iter().all(Run::lived)
    }
}

/// Whether a prediction for a cell was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Right,
    /// Too near to the boundary to count; or the only prediction was that it is near.
    Near,
    /// Predicted to live, but died.
    Unsafe,
    /// Predicted to die, but lived.
    Wasteful,
}

impl Cell {
    /// The outcome of a rule's prediction.
    pub fn word(&self, rule: &Rule, one: &Recording, boundary: u64) -> Word {
        let limit = self.limit.bytes;
        let is_said = limit >= (rule.lives_from)(one) || limit < (rule.boundary)(one);
        let is_near = limit.abs_diff(boundary) <= near(boundary);
        match (limit >= (rule.lives_from)(one), self.lived()) {
            _ if is_near || !is_said => Word::Near,
            (true, false) => Word::Unsafe,
            (false, true) => Word::Wasteful,
            _ => Word::Right,
        }
    }

    /// Whether memstock predicted that it lives and it died, however near the boundary.
    pub fn broke_the_word(&self, recording: &Recording) -> bool {
        self.limit.bytes >= (MEMSTOCK.lives_from)(recording) && !self.lived()
    }
}
