//! The command line: flags and their values, nothing that acts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use memstock_common::{MAX_BATCH, MAX_SLOTS};

use crate::journal::MAX_BYTES;
use crate::size;

/// How the exit codes read in `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0        success
  2        wrong usage
  120      permission missing
  121      the host lacks something that memstock needs
  122      no such cgroup, or one that cannot be tracked
  123      an engine is already running
  124      no engine is running
  125      any other failure of memstock
  126,127  COMMAND cannot be executed, was not found
  128+N    COMMAND was ended by signal N
  else     COMMAND's own";

/// A memory-cgroup controller in eBPF that runs beside the kernel's own.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// What is logged unless `RUST_LOG` says otherwise.
    pub fn log_level(&self) -> &'static str {
        match &self.verb {
            // The kernel half's crate, whose log comes by the ring buffer.
            Verb::Run(Run { trace: true, .. }) => "warn,memstock_probes=debug",
            _ => "warn",
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Charge the pages of cgroups and show them live until interrupted
    ///
    /// An engine whose daemon was killed goes on charging, and is adopted: what it tracks keeps its counters,
    /// cgroups named here are added, and limits given here are set.
    Run(Run),
    /// Show one sample of the running engine
    Show(Show),
    /// Give stocked pages back to the counters
    Drain(Drain),
    /// Change the limits of a tracked cgroup
    ///
    /// A limit below the usage is set after draining and reclaiming, or refused.
    Limit(SetLimit),
    /// Drain the stocks of a cgroup and reclaim what can be of its memory
    ForceEmpty(ForceEmpty),
    /// Prove that usage is what the cgroups' pages add up to, and compare with the kernel page by page
    ///
    /// For each cgroup, with those below it, usage is the pages owned and the unused ones (stocked, pending,
    /// on their way back); drift is what is missing, 0 when nothing is wrong. All figures are pages.
    /// They are exact only if nothing moved while they were read: stop the tasks for that. With a
    /// real drift, the exit code is 125.
    ///
    /// Where the kernel's memory controller knows a cgroup, by cgroup v2 or by --kernel-cgroup, the owner of
    /// each page is compared with /proc/kpagecgroup. A page counts as different only if it is so twice.
    Audit(Audit),
    /// Print what happened: limits, drains, cgroups that came and went, losses
    Events(Events),
    /// End the running engine, or remove what one left behind
    Stop,
    /// Let go of what a daemon holds, when it dies (started by `run`)
    #[command(hide = true)]
    Guard,
}

/// Flags of `memstock run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Track this cgroup v2 with all below it: a directory, or a path such as /system.slice/x
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<PathBuf>,

    /// Make a cgroup of this name, track it, and remove it at the end
    #[arg(long, value_name = "NAME")]
    pub new: Option<PathBuf>,

    /// Pages charged at once when a stock is empty [default: 32, or what an adopted engine has]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BATCH)))]
    pub batch: Option<u32>,

    /// Cgroups that a CPU's stock can be cached for at once: a power of two [default: 1, or what an adopted
    /// engine has]
    #[arg(long, value_name = "N", value_parser = slots)]
    pub slots: Option<u32>,

    /// Limit the memory of every cgroup named here, or of PATH only (bytes, or with K, M, G, T)
    #[arg(long = "limit", value_name = "[PATH=]SIZE", value_parser = limit)]
    pub limits: Vec<Limit>,

    /// Limit memory and swap together, of every cgroup named here, or of PATH only
    #[arg(long = "memsw-limit", value_name = "[PATH=]SIZE", value_parser = limit)]
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

    /// The kernel's own (v1) memory cgroup of CGROUP, or of the first cgroup: what it has is adopted
    #[arg(long = "kernel-cgroup", value_name = "[CGROUP=]PATH", value_parser = kernel_cgroup)]
    pub kernel_cgroups: Vec<KernelCgroup>,

    /// Do not drain stocks by itself when the kernel reclaims memory or a limit is near
    #[arg(long)]
    pub no_drain: bool,

    /// Log what the kernel half does on each miss (slow)
    #[arg(long)]
    pub trace: bool,

    /// Bytes after which a new file of the event stream is begun
    #[arg(long, value_name = "N", default_value_t = MAX_BYTES, hide = true)]
    pub events_bytes: u64,

    /// Start this in the cgroup: in NAME, else in the first PATH, else in one made for it
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// A value of `--limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Only for this cgroup.
    pub cgroup: Option<PathBuf>,
    /// Pages, or none for no limit.
    pub nr_pages: Option<u64>,
}

/// Flags of `memstock show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Print JSON; sizes in bytes, no limit is null
    #[arg(long)]
    pub json: bool,
}

/// Flags of `memstock events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Print JSON, a record a line
    #[arg(long)]
    pub json: bool,

    /// Go on with what happens, until the engine ends
    #[arg(long)]
    pub follow: bool,
}

/// Flags of `memstock drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// Only the stocks cached for this cgroup and those below it
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

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

/// A value of `--kernel-cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCgroup {
    /// The tracked cgroup that it stands for, unless it is the first one.
    pub cgroup: Option<PathBuf>,
    /// The kernel's: a directory, or a path in the v1 memory hierarchy.
    pub path: PathBuf,
}

/// Flags of `memstock limit`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("limits").required(true).multiple(true))]
pub struct SetLimit {
    /// The cgroup: a directory, or a path such as /system.slice/x
    #[arg(value_name = "CGROUP")]
    pub cgroup: PathBuf,

    /// Limit its memory (bytes, or with K, M, G, T; "max" for none)
    #[arg(long, value_name = "SIZE", value_parser = limited, group = "limits")]
    pub memory: Option<Limited>,

    /// Limit its memory and swap together
    #[arg(long, value_name = "SIZE", value_parser = limited, group = "limits")]
    pub memsw: Option<Limited>,

    /// Set a limit even if the usage cannot be brought below it
    #[arg(long)]
    pub force: bool,

    /// The kernel's own (v1) memory cgroup of CGROUP: its reclaim is used
    #[arg(long = "kernel-cgroup", value_name = "PATH", value_parser = kernel_cgroup)]
    pub kernel_cgroups: Vec<KernelCgroup>,
}

/// Flags of `memstock force-empty`.
#[derive(Debug, Args)]
pub struct ForceEmpty {
    /// The cgroup: a directory, or a path such as /system.slice/x
    #[arg(value_name = "CGROUP")]
    pub cgroup: PathBuf,

    /// The kernel's own (v1) memory cgroup of CGROUP: its reclaim is used
    #[arg(long = "kernel-cgroup", value_name = "PATH", value_parser = kernel_cgroup)]
    pub kernel_cgroups: Vec<KernelCgroup>,
}

/// Flags of `memstock audit`.
#[derive(Debug, Args)]
pub struct Audit {
    /// Adopt what only the kernel has and take away what only memstock has; without a kernel cgroup,
    /// take away what is free
    #[arg(long)]
    pub repair: bool,

    /// Print JSON; all figures are pages
    #[arg(long)]
    pub json: bool,

    /// The kernel's own (v1) memory cgroup of CGROUP, or of the only one that is tracked
    #[arg(long = "kernel-cgroup", value_name = "[CGROUP=]PATH", value_parser = kernel_cgroup)]
    pub kernel_cgroups: Vec<KernelCgroup>,
}

fn kernel_cgroup(value: &str) -> Result<KernelCgroup, String> {
    let (cgroup, path) = match value.rsplit_once('=') {
        Some((cgroup, path)) => (Some(cgroup), path),
        None => (None, value),
    };
    if path.is_empty() || cgroup.is_some_and(str::is_empty) {
        return Err("an empty path names no cgroup".into());
    }
    Ok(KernelCgroup { cgroup: cgroup.map(PathBuf::from), path: path.into() })
}

/// Pages, or none for no limit: a type of its own for clap, to which `Option<u64>` means another thing.
type Limited = Option<u64>;

fn limited(value: &str) -> Result<Limited, String> {
    size::parse_size(value).map_err(|error| error.to_string())
}

fn slots(value: &str) -> Result<u32, String> {
    match value.parse::<u32>() {
        Ok(slots) if slots.is_power_of_two() && slots <= MAX_SLOTS => Ok(slots),
        _ => Err(format!("not a power of two in 1..={MAX_SLOTS}")),
    }
}

fn limit(value: &str) -> Result<Limit, String> {
    if let Some((cgroup, size)) = value.rsplit_once('=') {
        let nr_pages = size::parse_size(size).map_err(|error| error.to_string())?;
        return Ok(Limit { cgroup: Some(cgroup.into()), nr_pages });
    }
    let nr_pages = size::parse_size(value).map_err(|error| error.to_string())?;
    Ok(Limit { cgroup: None, nr_pages })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_limit_is_for_all_or_for_one() {
        assert_eq!(limit("1M").unwrap().cgroup, None);
        let one = limit("/a=b/c=8K").unwrap();
        assert_eq!(one.cgroup.unwrap(), PathBuf::from("/a=b/c"));
        assert!(limit("12Q").is_err());
        assert!(limit("/a=").is_err());
    }

    #[test]
    fn a_kernel_cgroup_is_for_the_first_or_for_one() {
        let first = KernelCgroup { cgroup: None, path: "/x".into() };
        assert_eq!(kernel_cgroup("/x"), Ok(first));
        let one = KernelCgroup { cgroup: Some("/a=b".into()), path: "/x".into() };
        assert_eq!(kernel_cgroup("/a=b=/x"), Ok(one));
        for bad in ["", "=", "/a=", "=/x"] {
            assert!(kernel_cgroup(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slots_are_a_power_of_two() {
        assert_eq!(slots("8"), Ok(8));
        for bad in ["0", "3", "128", "-1", "x"] {
            assert!(slots(bad).is_err(), "{bad}");
        }
    }
}
