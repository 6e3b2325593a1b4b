//! Recommends a limit from one or more recordings of the same program.

use super::rehearse::{Rehearsal, SLOW};
use super::verdict::Peaks;

/// Limits are whole MiB: nobody pastes bytes.
const ROUND: u64 = 1 << 20;

/// What the recommendation aims at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// By what part a run may take longer.
    pub slower: f64,
    /// The part that is added for loads that were not recorded.
    pub margin: f64,
}

impl Default for Goal {
    /// The defaults of `memstock recommend`.
    fn default() -> Self {
        Self { slower: SLOW, margin: 0.1 }
    }
}

/// The limits to set and the figures behind them, in bytes; each the highest over the recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// `MemoryMax=`.
    pub max: u64,
    /// `MemoryHigh=`: above it the kernel begins to reclaim.
    pub high: u64,
    /// What cannot be reclaimed.
    pub needed: u64,
    /// From this limit on nobody is killed.
    pub lives_from: u64,
    /// From this limit on the run is not slower than allowed.
    pub fast_from: u64,
    /// The highest usage.
    pub peak: u64,
}

impl Advice {
    /// Advice from recordings of one program.
    pub fn of(rehearsals: &[Rehearsal<'_>], goal: Goal) -> Self {
        let mut all = Self::default();
        for one in rehearsals {
            let peaks = one.peaks();
            all.needed = all.needed.max(peaks.needed);
            all.peak = all.peak.max(peaks.usage);
            all.lives_from = all.lives_from.max(one.lives_from());
            all.fast_from = all.fast_from.max(one.smallest(goal.slower));
        }
        all.with_margin(goal.margin)
    }

    /// Advice from the peaks alone, if it is not known what would be read again.
    pub fn by_peaks(peaks: Peaks, margin: f64) -> Self {
        let lives_from = peaks.lives_from();
        let (needed, peak) = (peaks.needed, peaks.usage);
        Self { needed, peak, lives_from, fast_from: lives_from, ..Self::default() }
            .with_margin(margin)
    }

    fn with_margin(self, margin: f64) -> Self {
        let up = |bytes: u64| bytes.div_ceil(ROUND).saturating_mul(ROUND);
        let nearest = |bytes: u64| bytes.saturating_add(ROUND / 2) / ROUND * ROUND;
        let high = up(self.lives_from.max(self.fast_from));
        // The margin includes what cannot be seen; it is not added on top of that.
        let base = if self.fast_from > self.lives_from { self.fast_from } else { self.needed };
        let max = base.saturating_add((base as f64 * margin) as u64);
        Self { high, max: nearest(max).max(high), ..self }
    }
}

#[cfg(test)]
mod tests;
