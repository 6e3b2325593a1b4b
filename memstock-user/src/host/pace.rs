//! Work that nobody waits for: it gets no more than a hundredth of a CPU's time.

use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

/// One part in so many of a CPU's time.
const SHARE: u32 = 100;

/// When there is time again.
#[derive(Debug)]
pub struct Pace {
    not_before: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { not_before: Instant::now() }
    }
}

impl Pace {
    /// Does some of the work, unless its share is used up. `work` is told what it began with, for [`spent_since`].
    ///
    /// # Errors
    /// Those of `work`, or there is no such clock.
    pub fn work(&mut self, work: impl FnOnce(Duration) -> Result<()>) -> Result<()> {
        if Instant::now() < self.not_before {
            return Ok(());
        }
        let before = cpu_time()?;
        let outcome = work(before);
        self.not_before = Instant::now() + rest_after(spent_since(before)?);
        outcome
    }
}

/// Time without such work, after some that took `spent` of a CPU.
pub fn rest_after(spent: Duration) -> Duration {
    spent * SHARE
}

/// CPU time of this thread since it had `before`.
///
/// # Errors
/// There is no such clock.
pub fn spent_since(before: Duration) -> Result<Duration> {
    Ok(cpu_time()?.saturating_sub(before))
}

/// What this thread has had of the CPUs: that it waited for one cost nobody anything.
///
/// # Errors
/// There is no such clock.
pub fn cpu_time() -> Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_is_waited_for() {
        let (mut pace, mut done) = (Pace::default(), 0);
        for _ in 0..3 {
            pace.work(|before| {
                done += 1;
                while spent_since(before)? < Duration::from_millis(2) {}
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(done, 1, "there is time again after 200 ms");
    }
}
