//! Flags of the verb that measures a command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use memstock_common::MAX_BATCH;

use super::named::Named;
use super::value::slots;

/// Flags of `memstock stat`.
#[derive(Debug, Args)]
pub struct Stat {
    /// Create COMMAND's cgroup below this one (a directory, or a path such as /system.slice/x); if an engine is
    /// running, it must track this one
    #[arg(long, value_name = "PATH", conflicts_with = "Named")]
    pub cgroup: Option<PathBuf>,

    /// Or by name.
    #[command(flatten)]
    pub named: Named,

    /// Run COMMAND up to N times, until it fails, and show the mean and the standard deviation
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,

    /// Pages charged at once when a stock is empty [default: 32]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BATCH)))]
    pub batch: Option<u32>,

    /// Cgroups for which a CPU can hold stocks at once, up to 64 [default: 1]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,

    /// Count the charges of the kernel's own memory controller as well (needs fentry: CONFIG_FUNCTION_TRACER)
    #[arg(long)]
    pub kernel_stock: bool,

    /// Print JSON; sizes in bytes, times in seconds
    #[arg(long)]
    pub json: bool,

    /// Write the report to FILE instead of standard error
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
