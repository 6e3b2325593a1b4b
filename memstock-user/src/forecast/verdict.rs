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
//! batches, or under writeback), are needed as well. So from `needed` to [`unseen`] above it, *near*, runs at the same
//! limit differ, even if usage never was higher.
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
}

/// How much more than `needed` bytes may be needed: 3 %, at least 6 MiB. Measured were up to 2.8 %, and 4.6 MiB for
/// `cp` to a busy disk, whose pages under writeback cannot be reclaimed (`docs/rehearsal.md`).
pub const fn unseen(needed: u64) -> u64 {
    let (part, least) = (needed / 100 * 3, 6 << 20);
    if part > least { part } else { least }
}

impl Verdict {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Peaks {
    /// What a limit of `limit` bytes would have done.
    pub const fn at(self, limit: u64) -> Verdict {
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
    pub const fn lives_from(self) -> u64 {
        self.needed.saturating_add(unseen(self.needed))
    }

    /// The higher of each figure: a limit has to do for both runs.
    pub fn or(self, other: Self) -> Self {
        Self { usage: self.usage.max(other.usage), needed: self.needed.max(other.needed) }
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
        let peaks = Peaks { usage: 100 << 20, needed: 48 << 20 };
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
        let peaks = Peaks { usage: (100 << 20) + 1, needed: (48 << 20) + 1 };
        let all = "fits at 100.1MiB and above, reclaims down to 54.1MiB, oom below 48.1MiB";
        assert_eq!(peaks.to_string(), all);
        let all_needed = Peaks { usage: 100 << 20, needed: 100 << 20 };
        assert_eq!(all_needed.to_string(), "fits at 106.0MiB and above, oom below 100.0MiB");
        assert_eq!(all_needed.at(100 << 20), Verdict::Near);
    }
}
