//! Flags of the verb that runs an engine.

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
    /// COMMAND is measured (`memstock stat`): print nothing, and pass SIGINT and SIGQUIT to COMMAND.
    #[arg(skip)]
    pub is_measured: bool,

    /// Track this cgroup (v2) and all below it: a directory, or a path such as /system.slice/x
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<PathBuf>,

    /// More cgroups, by name.
    #[command(flatten)]
    pub named: Named,

    /// Read more cgroups, limits and settings from this TOML file, and again at SIGHUP; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Only check the --config FILE on this host: print its mistakes, and exit
    #[arg(long, requires = "config")]
    pub check: bool,

    /// Create a cgroup of this name, track it, and remove it at the end
    #[arg(long, value_name = "NAME")]
    pub new: Option<PathBuf>,

    /// Limit the memory of every cgroup named here, or of PATH only (bytes, or with K, M, G, T)
    #[arg(long = "limit", value_name = "[PATH=]SIZE", value_parser = limit())]
    pub limits: Vec<Limit>,

    /// Limit memory and swap together, of every cgroup named here, or of PATH only
    #[arg(long = "memsw-limit", value_name = "[PATH=]SIZE", value_parser = limit())]
    pub memsw_limits: Vec<Limit>,

    /// Settings that the file may have as well.
    #[command(flatten)]
    pub settings: Settings,

    /// End after this many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,

    /// Print neither tables nor the summary (for a service: its journal gets the events)
    #[arg(long)]
    pub quiet: bool,

    /// Log what the kernel half does on each miss (slow)
    #[arg(long)]
    pub trace: bool,

    /// Begin a new file of the event stream after this many bytes
    #[arg(long, value_name = "N", default_value_t = MAX_BYTES, hide = true)]
    pub events_bytes: u64,

    /// Paths of the configuration without a cgroup yet: tracked once one is created.
    #[arg(skip)]
    pub awaited: Vec<PathBuf>,

    /// Those of `cgroups` that the configuration names by container, pod or unit.
    #[arg(skip)]
    pub by_name: BTreeSet<PathBuf>,

    /// The settings of the configuration file.
    #[arg(skip)]
    pub file: Settings,

    /// Command to start in the cgroup NAME, else in the first PATH, else in one created for it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
