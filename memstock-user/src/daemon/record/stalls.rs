//! How long tasks of the recorded cgroup waited for I/O, by its `io.pressure`.
//!
//! The kernel weighs each CPU by the time in which the cgroup used it (Documentation/accounting/psi.rst): one task that
//! waits while another computes on another CPU counts as half. Whoever waits for that one task waits for all of it. So
//! what was added between two looks counts as often as CPUs were used, and one more, up to the time between them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::cgroup::Pressure;
use crate::host::number;

/// The interval between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// The time waited since the beginning.
#[derive(Debug)]
pub(super) struct Stalls {
    dir: PathBuf,
    before: Option<Look>,
    total: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    /// `some` of `io.pressure`.
    stalled: Duration,
    /// CPU time that the cgroup used.
    used: Duration,
}

impl Stalls {
    /// From now on; `dir` is the directory of the cgroup.
    pub(super) fn begin(dir: &Path) -> Self {
        let mut stalls = Self { dir: dir.to_owned(), before: None, total: None };
        stalls.look(Duration::ZERO);
        stalls.total = stalls.before.map(|_| Duration::ZERO);
        stalls
    }

    /// Looks if it is time to. The kernel sums up both files over all CPUs.
    pub(super) fn look_if_due(&mut self, at: Duration) {
        if self.before.is_some_and(|before| at.saturating_sub(before.at) >= INTERVAL) {
            self.look(at);
        }
    }

    /// Adds what was waited since the last look.
    pub(super) fn look(&mut self, at: Duration) {
        let Some(now) = Look::at(at, &self.dir) else { return };
        if let Some(before) = self.before.replace(now) {
            self.total = self.total.map(|total| total.saturating_add(now.since(before)));
        }
    }

    /// Microseconds in which tasks waited; `None` if the kernel does not account pressure.
    pub(super) fn total_us(&self) -> Option<u64> {
        self.total?.as_micros().try_into().ok()
    }
}

impl Look {
    fn at(at: Duration, dir: &Path) -> Option<Self> {
        let stalled = Pressure::of(dir, Path::new("/"), Pressure::IO)?.some.total;
        let stat = fs::read_to_string(dir.join("cpu.stat")).ok()?;
        Some(Self { at, stalled, used: Duration::from_micros(number(&stat, "usage_usec")?) })
    }

    fn since(self, before: Self) -> Duration {
        let passed = self.at.saturating_sub(before.at);
        let [stalled, used] = [(self.stalled, before.stalled), (self.used, before.used)]
            .map(|(now, before)| now.saturating_sub(before).as_secs_f64());
        let cpus = used / passed.as_secs_f64();
        Duration::try_from_secs_f64(stalled * (1.0 + cpus)).map_or(passed, |all| all.min(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_waits_beside_others_counts_whole() {
        let look = |at, stalled, used| {
            let [at, stalled, used] = [at, stalled, used].map(Duration::from_millis);
            Look { at, stalled, used }
        };
        let before = look(100, 50, 400);
        let since = |now: Look| now.since(before).as_millis();
        // Nobody waits; one waits and nobody computes; three compute, so that it counts as a quarter.
        assert_eq!(since(look(110, 50, 430)), 0);
        assert_eq!(since(look(110, 54, 400)), 4);
        assert_eq!(since(look(110, 51, 430)), 4);
        // No more than the time that passed, also if none did.
        assert_eq!(since(look(110, 59, 430)), 10);
        assert_eq!([since(look(100, 50, 400)), since(look(100, 51, 401))], [0, 0]);
    }
}
