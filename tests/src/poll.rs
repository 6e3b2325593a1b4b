//! Waits for a condition with a deadline, never for a fixed time.

use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Deadline for what the kernel or a small program does in milliseconds. It is generous because the host may be
/// busy, and a passing test does not wait for it.
pub const SOON: Duration = Duration::from_secs(20);

/// The environment variable with a factor for all deadlines, for emulated CPUs for example. `cargo xtask vm` sets it.
pub const PATIENCE: &str = "MEMSTOCK_PATIENCE";

const INTERVAL: Duration = Duration::from_millis(5);

static TIMES: LazyLock<u32> = LazyLock::new(|| {
    std::env::var(PATIENCE).ok().and_then(|times| times.parse().ok()).unwrap_or(1)
});

/// The factor for all deadlines: 1 on bare hardware.
pub fn times() -> u32 {
    *TIMES
}

/// Calls `look` until it returns something.
///
/// # Errors
/// When `deadline` passes. Names `what` was waited for.
pub fn poll_until<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T> {
    try_poll_until(deadline, what, || Ok(look()))
}

/// [`poll_until`] with a `look` that can fail, which ends the wait.
///
/// # Errors
/// As [`poll_until`], and those of `look`.
pub fn try_poll_until<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = deadline * *TIMES;
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("timed out after {deadline:?} waiting for {what}");
        }
        sleep(INTERVAL);
    }
}
