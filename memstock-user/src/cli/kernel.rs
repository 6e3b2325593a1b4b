//! Flags of the verb that looks at the kernel's own controller.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value::delay;

/// Flags of `memstock kernel`.
#[derive(Debug, Args)]
pub struct Kernel {
    /// Print JSON; sizes in bytes, slots in pages; with --watch, one sample per line
    #[arg(long)]
    pub json: bool,

    /// Repeat, and count slots that changed hands; where functions can be traced, also count the kernel's charges
    #[arg(long)]
    pub watch: bool,

    /// Only this memory cgroup and those below it: a directory, or a path in the hierarchy of the memory controller
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Also read isolated CPUs (isolcpus=, nohz_full=), which interrupts them for some microseconds
    #[arg(long)]
    pub isolated: bool,

    /// End after this many samples
    #[arg(short = 'n', long, value_name = "N", requires = "watch",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub iterations: Option<u64>,

    /// Seconds between two samples; fractions are allowed
    #[arg(short, long, value_name = "SECS", default_value = "1", requires = "watch", value_parser = delay)]
    pub delay: Duration,
}
