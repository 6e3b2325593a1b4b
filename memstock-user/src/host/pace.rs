//! Limits work that nobody waits for to a hundredth of a CPU's time.

use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

/// Such work gets one part in this many of a CPU's time.
const SHARE: u32 = 100;

/// When such work may run again.
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
    /// Calls `work` unless its share is used up, with this thread's CPU time so far, for [`spent_since`].
    ///
    /// # Errors
    /// Those of `work`, or the clock is missing.
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

/// How long to rest after work that took `spent` of a CPU.
pub fn rest_after(spent: Duration) -> Duration {
    spent * SHARE
}

/// CPU time of this thread since it was `before`.
///
/// # Errors
/// The clock is missing.
pub fn spent_since(before: Duration) -> Result<Duration> {
    Ok(cpu_time()?.saturating_sub(before))
}

/// CPU time of this thread. Wall time would include waiting for a CPU, which costs nobody anything.
///
/// # Errors
/// The clock is missing.
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
