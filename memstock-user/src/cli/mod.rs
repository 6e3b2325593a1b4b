//! The command line: flags and their values, nothing that acts.

mod bench;
mod change;
mod read;
mod run;
mod value;

use clap::{Parser, Subcommand};

pub use self::bench::{Bench, Table1, What};
pub use self::change::{Drain, ForceEmpty, SetLimit};
pub use self::read::{Audit, Events, Show};
pub use self::run::Run;
pub use self::value::{Batch, KernelCgroup, Limit};

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
    /// Measure what memstock costs on this machine
    Bench(Bench),
    /// End the running engine, or remove what one left behind
    Stop,
    /// Let go of what a daemon holds, when it dies (started by `run`)
    #[command(hide = true)]
    Guard,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
    }
}
