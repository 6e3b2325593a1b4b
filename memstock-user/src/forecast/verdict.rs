//! Predicts what any memory limit would do, from one run without it. Owns the rule; reads nothing.
//!
//! Take a run that used at most `usage`, of which it needed at most `needed`. Under a limit of
//!
//! - `usage` or more, the kernel would never have reclaimed: it *fits*;
//! - `needed` or more, the kernel would have reclaimed page cache and killed nobody: it *reclaims*;
//! - less, the kernel would have killed: *oom*. A charge kills once whole passes of reclaim free nothing
//!   (`try_charge_memcg` in `mm/memcontrol.c`), and those reclaim everything that is not needed.
//!
//! Memory that memstock does not see (slab), and pages that the kernel cannot reclaim at the moment (in the CPUs' LRU
//! batches, or under writeback), are needed as well. So from `needed` to [`Peaks::unseen`] above it, *near*, runs at the
//! same limit differ, even if usage never was higher.
//!
//! This holds as far as a run's need depends neither on its speed nor on the limit itself.

use std::fmt;

use crate::model::size::{human, human_up};

/// What a limit would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Verdict {
    /// Somebody is killed.
    Oom,
    /// Somebody may be killed.
    Near,
    /// Nobody is killed, but reading pages again takes time.
    Slow,
    /// Page cache is reclaimed, and nobody is killed.
    Reclaims,
    /// Nothing happens.
    Fits,
}

/// The highest figures of a run, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// The highest usage.
    pub usage: u64,
    /// The most that was needed.
    pub needed: u64,
    /// The page cache that may have been under writeback at a time: by a sample, or if that is not known, all of it.
    pub written: u64,
}

/// What may be needed beyond what is seen: 3 %, and at least 2 MiB more than what is under writeback, of which at most
/// 4 MiB count. Measured were 2.8 %, 1.2 MiB, and 4.6 MiB for `cp` to a busy disk (`docs/rehearsal.md`).
const UNSEEN_PERCENT: u64 = 3;
const UNSEEN_LEAST: u64 = 2 << 20;
const UNSEEN_WRITEBACK: u64 = 4 << 20;

impl Verdict {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Peaks {
    /// Those of a run of which it is not known what it wrote: at most all its page cache.
    pub const fn of(usage: u64, needed: u64) -> Self {
        Self { usage, needed, written: usage.saturating_sub(needed) }
    }

    /// What a limit of `limit` bytes would have done.
    pub fn at(self, limit: u64) -> Verdict {
        if limit < self.needed {
            Verdict::Oom
        } else if limit < self.lives_from() {
            Verdict::Near
        } else if limit < self.usage {
            Verdict::Reclaims
        } else {
            Verdict::Fits
        }
    }

    /// The lowest limit at which nobody is killed, in bytes.
    pub fn lives_from(self) -> u64 {
        self.needed.saturating_add(self.unseen())
    }

    /// How much more than what is seen may be needed, in bytes.
    pub fn unseen(self) -> u64 {
        let least = UNSEEN_LEAST + self.written.min(UNSEEN_WRITEBACK);
        least.max(self.needed / 100 * UNSEEN_PERCENT)
    }

    /// The higher of each figure: a limit has to do for both runs.
    pub fn or(self, other: Self) -> Self {
        Self {
            usage: self.usage.max(other.usage),
            needed: self.needed.max(other.needed),
            written: self.written.max(other.written),
        }
    }

    /// Formats a verdict for people: `100.0MiB: reclaims (48.0MiB needed)`.
    pub fn judge(self, limit: u64) -> String {
        format!("{}: {} ({} needed)", human(limit), self.at(limit).name(), human_up(self.needed))
    }
}

/// Formats the verdict for all limits: `fits at 173.0MiB and above, reclaims down to 54.0MiB, oom below 48.0MiB`.
/// Rounded up, so that a figure copied from here is enough; without the middle part if almost all usage is needed.
impl fmt::Display for Peaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [fits, reclaims, oom] =
            [Verdict::Fits, Verdict::Reclaims, Verdict::Oom].map(Verdict::name);
        let (lives, needed) = (self.lives_from(), human_up(self.needed));
        write!(f, "{fits} at {} and above, ", human_up(self.usage.max(lives)))?;
        if lives < self.usage {
            write!(f, "{reclaims} down to {}, ", human_up(lives))?;
        }
        write!(f, "{oom} below {needed}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_verdict() {
        let peaks = Peaks::of(100 << 20, 48 << 20);
        for (limit, verdict) in [
            (u64::MAX, Verdict::Fits),
            (100 << 20, Verdict::Fits),
            ((100 << 20) - 1, Verdict::Reclaims),
            (54 << 20, Verdict::Reclaims),
            ((54 << 20) - 1, Verdict::Near),
            (48 << 20, Verdict::Near),
            ((48 << 20) - 1, Verdict::Oom),
            (0, Verdict::Oom),
        ] {
            assert_eq!(peaks.at(limit), verdict, "{limit}");
        }
        assert_eq!(peaks.judge(64 << 20), "64.0MiB: reclaims (48.0MiB needed)");
        let all = "fits at 100.0MiB and above, reclaims down to 54.0MiB, oom below 48.0MiB";
        assert_eq!(peaks.to_string(), all);
    }

    #[test]
    fn what_is_shown_is_enough() {
        let peaks = Peaks::of((100 << 20) + 1, (48 << 20) + 1);
        let all = "fits at 100.1MiB and above, reclaims down to 54.1MiB, oom below 48.1MiB";
        assert_eq!(peaks.to_string(), all);
        let all_needed = Peaks::of(100 << 20, 100 << 20);
        assert_eq!(all_needed.to_string(), "fits at 103.0MiB and above, oom below 100.0MiB");
        assert_eq!(all_needed.at(100 << 20), Verdict::Near);
    }

    #[test]
    fn what_is_written_may_be_needed_for_a_while() {
        let needed = 10 << 20;
        let with = |written| Peaks { usage: 50 << 20, needed, written }.lives_from() - needed;
        assert_eq!([0, 1 << 20, 40 << 20].map(with), [2 << 20, 3 << 20, 6 << 20]);
    }
}
