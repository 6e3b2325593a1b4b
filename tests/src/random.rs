//! Random choices of tests, repeatable by seed.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

/// The environment variable with the seed of a run to repeat.
pub const SEED: &str = "MEMSTOCK_SEED";

/// SplitMix64.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that gives the same numbers each time.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator whose seed is printed, so that a failed test shows it.
    ///
    /// # Errors
    /// When [`SEED`] is not a number.
    pub fn seeded() -> Result<Self> {
        let seed = match std::env::var(SEED) {
            Ok(seed) => seed.parse().context(SEED)?,
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64,
        };
        eprintln!("{SEED}={seed}");
        Ok(Self(seed))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }

    /// Sleeps for a random time of at most `longest`.
    pub fn wait_up_to(&mut self, longest: Duration) {
        sleep(Duration::from_micros(self.below(longest.as_micros() as u64)));
    }
}
