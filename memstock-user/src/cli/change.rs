//! Flags of the verbs that change something in a running engine.

use std::path::PathBuf;

use clap::Args;

use super::named::Named;
use super::value::{Limited, limited};

/// Flags of `memstock drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// Only stocks of this cgroup and those below it
    #[arg(long, value_name = "PATH", conflicts_with = "Named")]
    pub cgroup: Option<PathBuf>,

    /// Or by name.
    #[command(flatten)]
    pub named: Named,

    /// Only the stock of this CPU
    #[arg(long, value_name = "N")]
    pub cpu: Option<u32>,

    /// Drain this many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `memstock limit`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("limits").required(true).multiple(true))]
pub struct SetLimit {
    /// The cgroup: a directory, or a path such as /system.slice/x
    #[arg(value_name = "CGROUP", required_unless_present = "Named", conflicts_with = "Named")]
    pub cgroup: Option<PathBuf>,

    /// Or by name.
    #[command(flatten)]
    pub named: Named,

    /// Limit of memory (bytes, or with K, M, G, T; "max" for none)
    #[arg(long, value_name = "SIZE", value_parser = limited, group = "limits")]
    pub memory: Option<Limited>,

    /// Limit of memory and swap together
    #[arg(long, value_name = "SIZE", value_parser = limited, group = "limits")]
    pub memsw: Option<Limited>,

    /// Set a limit even if the usage cannot be brought below it
    #[arg(long)]
    pub force: bool,
}

/// Flags of `memstock force-empty`.
#[derive(Debug, Args)]
pub struct ForceEmpty {
    /// The cgroup: a directory, or a path such as /system.slice/x
    #[arg(value_name = "CGROUP", required_unless_present = "Named", conflicts_with = "Named")]
    pub cgroup: Option<PathBuf>,

    /// Or by name.
    #[command(flatten)]
    pub named: Named,
}
