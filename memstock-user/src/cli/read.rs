//! Flags of the verbs that read: a running engine, or the host.

use std::path::PathBuf;

use clap::Args;

use super::named::Named;
use super::value::kernel_cgroup;
use crate::engine::kernel_cgroup::KernelCgroup;

/// Flags of `memstock show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Only this tracked cgroup (a directory, or a path such as /system.slice/x) and those below it
    #[arg(long, value_name = "PATH", conflicts_with = "Named")]
    pub cgroup: Option<PathBuf>,

    /// Or by name.
    #[command(flatten)]
    pub named: Named,

    /// Print JSON; sizes in bytes, no limit is null
    #[arg(long)]
    pub json: bool,
}

/// Flags of `memstock events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Print JSON, one record per line
    #[arg(long)]
    pub json: bool,

    /// Keep printing new records until the engine ends
    #[arg(long)]
    pub follow: bool,
}

/// Flags of `memstock audit`.
#[derive(Debug, Args)]
pub struct Audit {
    /// Charge pages that only the kernel charges, and uncharge those that only memstock charges; without a kernel
    /// cgroup, uncharge pages that are free
    #[arg(long)]
    pub repair: bool,

    /// Print JSON; all figures are pages
    #[arg(long)]
    pub json: bool,

    /// The kernel's own (v1) memory cgroup for CGROUP, or for the only one that is tracked, if its path differs
    #[arg(long = "kernel-cgroup", value_name = "[CGROUP=]PATH", value_parser = kernel_cgroup())]
    pub kernel_cgroups: Vec<KernelCgroup>,
}

/// Flags of `memstock doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
