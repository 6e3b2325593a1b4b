//! How often tests repeat their work: in full, or less where CPUs are emulated and everything takes ten times as long.
//!
//! Only repetitions are scaled, never what is expected of them.

use std::sync::LazyLock;

/// The environment variable with the percentage of its repetitions that a test makes, at least one.
/// `cargo xtask vm --load` sets it.
pub const LOAD: &str = "MEMSTOCK_LOAD";

/// The environment variable with the number of minutes that one daemon runs in a soak test. `cargo xtask soak` sets it.
pub const MINUTES: &str = "MEMSTOCK_MINUTES";

static PERCENT: LazyLock<u32> = LazyLock::new(|| {
    std::env::var(LOAD).ok().and_then(|percent| percent.parse().ok()).unwrap_or(100)
});

/// The number of minutes of a soak test; 0 otherwise.
pub fn minutes() -> u64 {
    std::env::var(MINUTES).ok().and_then(|minutes| minutes.parse().ok()).unwrap_or_default()
}

/// The percentage [`LOAD`] of `times`, at least 1.
pub fn scaled(times: u32) -> u32 {
    let times = u64::from(times);
    // It fits in a u32 for up to 100 percent.
    u32::try_from((times * u64::from(*PERCENT) / 100).max(1)).unwrap_or(u32::MAX)
}
