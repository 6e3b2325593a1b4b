//! Flags of the verb that records.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::named::Named;

/// Flags of `memstock record`.
#[derive(Debug, Args)]
pub struct Record {
    /// Write the recording to FILE
    #[arg(long, short, value_name = "FILE", default_value = "memstock.data")]
    pub output: PathBuf,

    /// End after this many seconds, and end COMMAND
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,

    /// Record this cgroup (a directory, or a path such as /system.slice/x) and all below it; with COMMAND, create
    /// COMMAND's below it
    #[arg(long, value_name = "PATH", conflicts_with = "Named")]
    pub cgroup: Option<PathBuf>,

    /// Or by name.
    #[command(flatten)]
    pub named: Named,

    /// Also record each charge and uncharge, for "memstock replay": takes time, and some 8 bytes for each page charged
    /// and uncharged; for short runs
    #[arg(long)]
    pub charges: bool,

    /// What to run and record
    #[arg(last = true, value_name = "COMMAND", required_unless_present_any = ["cgroup", "Named"])]
    pub command: Vec<OsString>,
}
