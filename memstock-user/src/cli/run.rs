//! Flags of the verb that has an engine.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use memstock_common::MAX_CGROUPS;

use super::value::{Batch, Limit, address, batch, limit, slots};
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

    /// Read further cgroups, limits and settings from this TOML file, and again at SIGHUP; flags win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Only check the --config FILE, on this host: print all that is wrong with it, and end
    #[arg(long, requires = "config")]
    pub check: bool,

    /// Make a cgroup of this name, track it, and remove it at the end
    #[arg(long, value_name = "NAME")]
    pub new: Option<PathBuf>,

    /// Pages charged at once when a stock is empty: a number, or "auto" for two for each CPU, from 32 to 256
    /// [default: 32, or what an adopted engine has]
    #[arg(long, value_name = "N|auto", value_parser = batch)]
    pub batch: Option<Batch>,

    /// Cgroups that a CPU's stock can be cached for at once: a power of two [default: 1, or what an adopted
    /// engine has]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,

    /// Cgroups that can be tracked at once, up to 16384: 40 bytes for each on each possible CPU, and 128 more
    /// [default: 1024, or what an adopted engine has]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CGROUPS)))]
    pub max_cgroups: Option<u32>,

    /// Limit the memory of every cgroup named here, or of PATH only (bytes, or with K, M, G, T)
    #[arg(long = "limit", value_name = "[PATH=]SIZE", value_parser = limit())]
    pub limits: Vec<Limit>,

    /// Limit memory and swap together, of every cgroup named here, or of PATH only
    #[arg(long = "memsw-limit", value_name = "[PATH=]SIZE", value_parser = limit())]
    pub memsw_limits: Vec<Limit>,

    /// Stop and kill nobody at a limit: only say what would have been done
    #[arg(long)]
    pub observe: bool,

    /// At a limit, kill all tasks of the cgroup that is over it (as memory.oom.group does), not the largest
    #[arg(long)]
    pub oom_group: bool,

    /// End after this many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,

    /// Charge memory+swap as well (on by itself when the host has swap)
    #[arg(long)]
    pub memsw: bool,

    /// Leave alone what the cgroups' tasks hold already; charge only what is allocated from now on
    #[arg(long)]
    pub no_adopt: bool,

    /// Do not drain stocks by itself when the kernel reclaims memory or a limit is near
    #[arg(long)]
    pub no_drain: bool,

    /// Print neither tables nor the summary: for a service, whose journal gets the events
    #[arg(long)]
    pub quiet: bool,

    /// Serve metrics and health over HTTP, on loopback unless an address is given (docs/metrics.md)
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = address)]
    pub metrics: Option<SocketAddr>,

    /// Log what the kernel half does on each miss (slow)
    #[arg(long)]
    pub trace: bool,

    /// Bytes after which a new file of the event stream is begun
    #[arg(long, value_name = "N", default_value_t = MAX_BYTES, hide = true)]
    pub events_bytes: u64,

    /// Of the configuration, what is tracked when it is made.
    #[arg(skip)]
    pub awaited: Vec<PathBuf>,

    /// Start this in the cgroup: in NAME, else in the first PATH, else in one made for it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
