//! Waiting: for a condition, with a deadline, and never for a time.

use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// For what the kernel or a small program does in milliseconds; generous, since the host may be
/// busy with other things and a test that passes does not wait for it.
pub const SOON: Duration = Duration::from_secs(20);

/// The environment variable that says how many times longer than that everything may take: on CPUs that
/// are emulated, say. `cargo xtask vm` sets it.
pub const PATIENCE: &str = "MEMSTOCK_PATIENCE";

const INTERVAL: Duration = Duration::from_millis(5);

static TIMES: LazyLock<u32> = LazyLock::new(|| {
    std::env::var(PATIENCE).ok().and_then(|times| times.parse().ok()).unwrap_or(1)
});

/// How many times longer than on bare hardware everything may take.
pub fn times() -> u32 {
    *TIMES
}

/// Asks `look` until it gives something.
///
/// # Errors
/// Names `what` was waited for when `deadline` has passed.
pub fn poll_until<T>(
    deadline: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T> {
    try_poll_until(deadline, what, || Ok(look()))
}

/// [`poll_until`] for a `look` that can fail, which ends the waiting.
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
            bail!("waited {deadline:?} in vain for {what}");
        }
        sleep(INTERVAL);
    }
}
