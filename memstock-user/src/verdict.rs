//! What a memory limit would do, for every limit at once, from one run without it. Owns the rule; reads nothing.
//!
//! Of a run that has used at most `usage`, and needed at most `needed` of that, the kernel would at a limit
//!
//! - of `usage` or more never have reclaimed: it *fits*;
//! - of `needed` or more have taken page cache back, and killed nobody: it *reclaims*;
//! - below that have killed: *oom*. A charge kills once whole passes of reclaim free nothing
//!   (`try_charge_memcg` in `mm/memcontrol.c`), and those take back all that is not needed.
//!
//! It holds as far as what a run needs does not depend on its speed, or on the limit itself.

use std::fmt;

use crate::size::{human, human_up};

/// What a limit would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Somebody is killed.
    Oom,
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

impl Verdict {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oom => "oom",
            Self::Reclaims => "reclaims",
            Self::Fits => "fits",
        }
    }
}

impl Peaks {
    /// What a limit of so many bytes would have done.
    pub const fn at(self, limit: u64) -> Verdict {
        if limit >= self.usage {
            Verdict::Fits
        } else if limit >= self.needed {
            Verdict::Reclaims
        } else {
            Verdict::Oom
        }
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

/// For all limits: `fits at 173.0MiB and above, reclaims down to 48.0MiB, oom below`. Rounded up, so that what is
/// copied from here is enough; without the middle where all that is used is needed.
impl fmt::Display for Peaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [fits, reclaims, oom] =
            [Verdict::Fits, Verdict::Reclaims, Verdict::Oom].map(Verdict::name);
        let (usage, needed) = (human_up(self.usage), human_up(self.needed));
        write!(f, "{fits} at {usage} and above, ")?;
        if needed != usage {
            write!(f, "{reclaims} down to {needed}, ")?;
        }
        write!(f, "{oom} below")
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
            (48 << 20, Verdict::Reclaims),
            ((48 << 20) - 1, Verdict::Oom),
            (0, Verdict::Oom),
        ] {
            assert_eq!(peaks.at(limit), verdict, "{limit}");
        }
        assert_eq!(peaks.judge(64 << 20), "64.0MiB: reclaims (48.0MiB needed)");
        let all = "fits at 100.0MiB and above, reclaims down to 48.0MiB, oom below";
        assert_eq!(peaks.to_string(), all);
    }

    #[test]
    fn what_is_shown_is_enough() {
        let peaks = Peaks { usage: (100 << 20) + 1, needed: (48 << 20) + 1 };
        let all = "fits at 100.1MiB and above, reclaims down to 48.1MiB, oom below";
        assert_eq!(peaks.to_string(), all);
        assert_eq!(Peaks::default().at(0), Verdict::Fits);
        let all_needed = Peaks { usage: 100 << 20, needed: 100 << 20 };
        assert_eq!(all_needed.to_string(), "fits at 100.0MiB and above, oom below");
    }
}
