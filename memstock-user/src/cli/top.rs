//! Flags of the live view.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::named::Named;

/// Flags of `memstock top`. Short ones are those of top(1).
#[derive(Debug, Args)]
pub struct Top {
    /// Only this tracked cgroup (a directory, or a path such as /system.slice/x) and those below it
    #[arg(long, value_name = "PATH", conflicts_with = "Named")]
    pub cgroup: Option<PathBuf>,

    /// Or by name.
    #[command(flatten)]
    pub named: Named,

    /// Print plain samples, one after the other; rates are unknown in the first
    #[arg(short, long)]
    pub batch_mode: bool,

    /// End after this many samples
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub iterations: Option<u64>,

    /// Seconds between two samples; fractions are allowed
    #[arg(short, long, value_name = "SECS", default_value = "1", value_parser = delay)]
    pub delay: Duration,

    /// Use colours; "auto" uses them unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub color: When,
}

/// When something is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Where it is wanted.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// Shorter, and the view would be most of what there is to see; longer, and it is no view.
const DELAYS: std::ops::RangeInclusive<f64> = 0.1..=86_400.0;

fn delay(value: &str) -> Result<Duration, String> {
    match value.parse() {
        Ok(seconds) if DELAYS.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("not a number of seconds in {}..={}", DELAYS.start(), DELAYS.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_have_bounds() {
        assert_eq!(delay("1"), Ok(Duration::from_secs(1)));
        assert_eq!(delay("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "0.09", "-1", "nan", "inf", "1e9", "86401", "", "1s", "1,5"] {
            assert!(delay(bad).is_err(), "{bad}");
        }
    }
}
