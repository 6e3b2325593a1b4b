//! What a memory limit would do, for every limit at once, from one run without it. Owns the rule; reads nothing.
//!
//! Of a run that has used at most `usage`, and needed at most `needed` of that, the kernel would at a limit
//!
//! - of `usage` or more never have reclaimed: it *fits*;
//! - of `needed` or more have taken page cache back, and killed nobody: it *reclaims*;
//! - below that have killed: *oom*. A charge kills once whole passes of reclaim free nothing
//!   (`try_charge_memcg` in `mm/memcontrol.c`), and those take back all that is not needed.
//!
//! What memstock does not see (slab), and what the kernel cannot take back at this moment (pages in the CPUs' LRU
//! batches, or on their way to a disk), is needed as well: from `needed` to [`unseen`] above it, *near*, runs at the
//! same limit differ, even where usage never was higher.
//!
//! It holds as far as what a run needs does not depend on its speed, or on the limit itself.

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
    /// Nobody is killed, but what is read again takes time.
    Slow,
    /// Page cache is taken back, and nobody is killed.
    Reclaims,
    /// Nothing.
    Fits,
}

/// The highest figures of a run, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peaks {
    /// Of usage.
    pub usage: u64,
    /// Of what is needed.
    pub needed: u64,
}

/// How much more may be needed than `needed` bytes: 3 %, and 6 MiB at least. It was up to 2.8 %, and for `cp` to a busy
/// disk, whose pages on their way there cannot be taken back, 4.6 MiB (`docs/rehearsal.md`).
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
    /// What a limit of so many bytes would have done.
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

    /// The higher of two, each by itself: a limit has to do for both.
    pub fn or(self, other: Self) -> Self {
        Self { usage: self.usage.max(other.usage), needed: self.needed.max(other.needed) }
    }

    /// That, for people: `100.0MiB: reclaims (48.0MiB needed)`.
    pub fn judge(self, limit: u64) -> String {
        format!("{}: {} ({} needed)", human(limit), self.at(limit).name(), human_up(self.needed))
    }
}

/// For all limits: `fits at 173.0MiB and above, reclaims down to 54.0MiB, oom below 48.0MiB`. Rounded up, so that what
/// is copied from here is enough; without the middle where next to all that is used is needed.
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
