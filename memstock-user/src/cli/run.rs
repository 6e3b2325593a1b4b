//! Flags of the verb that has an engine.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::config::Settings;
use super::named::Named;
use super::value::{Limit, limit};
use crate::journal::MAX_BYTES;

/// Flags of `memstock run`.
#[derive(Clone, Debug, Default, Args)]
pub struct Run {
    /// COMMAND is measured (`memstock stat`): nothing is printed, and SIGINT is for COMMAND.
    #[arg(skip)]
    pub is_measured: bool,

    /// Track this cgroup v2 with all below it: a directory, or a path such as /system.slice/x
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<PathBuf>,

    /// And these by name.
    #[command(flatten)]
    pub named: Named,

    /// Read further cgroups, limits and settings from this TOML file, and again at SIGHUP; flags win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Only check the --config FILE, on this host: print what is wrong with it, and end
    #[arg(long, requires = "config")]
    pub check: bool,

    /// Make a cgroup of this name, track it, and remove it at the end
    #[arg(long, value_name = "NAME")]
    pub new: Option<PathBuf>,

    /// Limit the memory of every cgroup named here, or of PATH only (bytes, or with K, M, G, T)
    #[arg(long = "limit", value_name = "[PATH=]SIZE", value_parser = limit())]
    pub limits: Vec<Limit>,

    /// Limit memory and swap together, of every cgroup named here, or of PATH only
    #[arg(long = "memsw-limit", value_name = "[PATH=]SIZE", value_parser = limit())]
    pub memsw_limits: Vec<Limit>,

    /// What a file may say as well.
    #[command(flatten)]
    pub settings: Settings,

    /// End after this many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,

    /// Print neither tables nor the summary: for a service, whose journal gets the events
    #[arg(long)]
    pub quiet: bool,

    /// Log what the kernel half does on each miss (slow)
    #[arg(long)]
    pub trace: bool,

    /// Bytes after which a new file of the event stream is begun
    #[arg(long, value_name = "N", default_value_t = MAX_BYTES, hide = true)]
    pub events_bytes: u64,

    /// Of the configuration, what is tracked when it is made.
    #[arg(skip)]
    pub awaited: Vec<PathBuf>,

    /// Of `cgroups`, those that the configuration has by what people call them.
    #[arg(skip)]
    pub by_name: BTreeSet<PathBuf>,

    /// What the configuration says.
    #[arg(skip)]
    pub file: Settings,

    /// Start this in the cgroup: in NAME, else in the first PATH, else in one made for it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
