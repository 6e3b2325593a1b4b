//! How much a test does: all of it, or less where CPUs are emulated and everything takes ten times as long.
//!
//! Only what is repeated is scaled, never what is expected of it.

use std::sync::LazyLock;

/// The environment variable that says how many percent of its repetitions a test makes; at least one in any
/// case. `cargo xtask vm --load` sets it.
pub const LOAD: &str = "MEMSTOCK_LOAD";

/// The environment variable that says for how many minutes one daemon is to be at work. `cargo xtask soak` sets it.
pub const MINUTES: &str = "MEMSTOCK_MINUTES";

static PERCENT: LazyLock<u32> = LazyLock::new(|| {
    std::env::var(LOAD).ok().and_then(|percent| percent.parse().ok()).unwrap_or(100)
});

/// For so many minutes; none but in a soak.
pub fn minutes() -> u64 {
    std::env::var(MINUTES).ok().and_then(|minutes| minutes.parse().ok()).unwrap_or_default()
}

/// So many times, on a host; here, what [`LOAD`] leaves of it.
pub fn scaled(times: u32) -> u32 {
    let times = u64::from(times);
    // At most a u32 for up to 100 percent.
    u32::try_from((times * u64::from(*PERCENT) / 100).max(1)).unwrap_or(u32::MAX)
}
