//! Flags of the live view.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::named::Named;
use super::value::delay;

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

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// Unless NO_COLOR is set.
    Auto,
    /// Even if NO_COLOR is set.
    Always,
    /// Not at all.
    Never,
}
