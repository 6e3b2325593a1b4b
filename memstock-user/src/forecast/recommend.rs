//! The limit to set, by one or several recordings of the same program.

use super::rehearse::{Rehearsal, SLOW};
use super::verdict::Peaks;

/// Limits are whole MiB: nobody pastes bytes.
const ROUND: u64 = 1 << 20;

/// What is worth how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// A run may take longer by this part.
    pub slower: f64,
    /// For loads that were not recorded, this part is added.
    pub margin: f64,
}

impl Default for Wish {
    /// What `memstock recommend` takes unless it is told.
    fn default() -> Self {
        Self { slower: SLOW, margin: 0.1 }
    }
}

/// What to set, in bytes, and of what it is made; each the highest over the recordings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// `MemoryMax=`.
    pub max: u64,
    /// `MemoryHigh=`: above it the kernel begins to reclaim.
    pub high: u64,
    /// What cannot be reclaimed.
    pub needed: u64,
    /// Nobody is killed from here on.
    pub lives_from: u64,
    /// It is no slower than it may be from here on.
    pub fast_from: u64,
    /// The most that was used.
    pub peak: u64,
}

impl Advice {
    /// Of recordings of one program.
    pub fn of(rehearsals: &[Rehearsal<'_>], wish: Wish) -> Self {
        let mut all = Self::default();
        for one in rehearsals {
            let peaks = one.peaks();
            all.needed = all.needed.max(peaks.needed);
            all.peak = all.peak.max(peaks.usage);
            all.lives_from = all.lives_from.max(one.lives_from());
            all.fast_from = all.fast_from.max(one.smallest(wish.slower));
        }
        all.with_margin(wish.margin)
    }

    /// By the highest figures alone, where it is not known what is read again.
    pub fn by_peaks(peaks: Peaks, margin: f64) -> Self {
        let lives_from = peaks.lives_from();
        let (needed, peak) = (peaks.needed, peaks.usage);
        Self { needed, peak, lives_from, fast_from: lives_from, ..Self::default() }
            .with_margin(margin)
    }

    fn with_margin(self, margin: f64) -> Self {
        let up = |bytes: u64| bytes.div_ceil(ROUND).saturating_mul(ROUND);
        let high = self.lives_from.max(self.fast_from);
        // What cannot be seen is a part of the margin, not one more below it.
        let base = if self.fast_from > self.lives_from { self.fast_from } else { self.needed };
        let max = base.saturating_add((base as f64 * margin) as u64);
        Self { high: up(high), max: up(max.max(high)), ..self }
    }
}

#[cfg(test)]
mod tests;
