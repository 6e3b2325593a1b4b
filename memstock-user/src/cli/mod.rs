//! The command line: flags and their values here, what the verbs do in `command`.

pub mod command;
pub mod config;
pub mod doctor;
pub mod manual;

mod about;
mod change;
mod forecast;
mod kernel;
mod named;
mod read;
mod record;
mod run;
mod stat;
mod top;
mod value;

use clap::{Command, CommandFactory as _, Parser, Subcommand};

pub use self::about::{Completions, Man};
pub use self::change::{Drain, ForceEmpty, SetLimit};
pub use self::forecast::{Format, Recommend, Rehearse, Replay, Report, Verify, WhatIfArgs};
pub use self::kernel::Kernel;
pub use self::named::Named;
pub use self::read::{Audit, Doctor, Events, Show};
pub use self::record::Record;
pub use self::run::Run;
pub use self::stat::Stat;
pub use self::top::{Top, When};
pub use self::value::{Limit, Swap};

/// The exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0        success
  2        wrong usage
  10,11    rehearse, verify: it would be slow, it would be killed
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
#[command(version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

impl Cli {
    /// The log level unless `RUST_LOG` sets another.
    pub fn log_level(&self) -> &'static str {
        match &self.verb {
            // The crate of the kernel half, whose log arrives through a ring buffer.
            Verb::Run(Run { trace: true, .. }) => "warn,memstock_probes=debug",
            _ => "warn",
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub enum Verb {
    /// Charge the pages of cgroups and show them live until interrupted
    ///
    /// An engine whose daemon was killed keeps charging and is adopted: its cgroups keep their counters, cgroups named
    /// here are added, and limits given here are set.
    Run(Run),
    /// Show one sample of the running engine
    Show(Show),
    /// Show the running engine live: cgroups, CPUs and events
    ///
    /// If standard output is not a terminal that can be drawn on, prints plain samples, as with --batch-mode. Press "?"
    /// for the keys.
    Top(Top),
    /// Give stocked pages back to the counters
    Drain(Drain),
    /// Change the limits of a tracked cgroup
    ///
    /// A limit below the usage is set once draining and reclaim have made room; otherwise it is refused.
    Limit(SetLimit),
    /// Drain the stocks of a cgroup and reclaim as much of its memory as possible
    ForceEmpty(ForceEmpty),
    /// Check that each cgroup's usage is the sum of its pages, and compare with the kernel page by page
    ///
    /// For each cgroup, including those below it, usage should be the pages owned plus the unused ones (stocked,
    /// pending, or in uncharge batches); drift is the difference, 0 when nothing is wrong. All figures are pages. They
    /// are exact only if nothing changed while they were read: stop the tasks for that. If there is real drift, the
    /// exit code is 125.
    ///
    /// If the kernel's memory controller knows a cgroup, through cgroup v2 or --kernel-cgroup, the owner of each page
    /// is compared with /proc/kpagecgroup. A page counts as different only if it differs twice.
    Audit(Audit),
    /// Show what the kernel's own memory controller has in stock on each CPU, and for which cgroup
    ///
    /// The kernel charges a batch of pages at once and keeps the rest in slots of each CPU. Those pages count in the
    /// usage of their memory cgroup and its ancestors although nobody uses them: net is the usage without them. Each
    /// CPU is read separately, from an interrupt; error is the number of pages by which the slots differed before and
    /// after the usage was read. Bytes are what is left of charged pages, in stock for small objects; they are part of
    /// net.
    ///
    /// Changes nothing, attaches nothing without --watch, and needs no engine. The memory controller may be on cgroup
    /// v1 or v2. Exit code 121 if the kernel has no stock of a kind that memstock knows.
    ///
    /// --watch ends at SIGINT or SIGTERM, or after N samples.
    Kernel(Kernel),
    /// Print what happened: limits, drains, cgroups created and removed, losses
    Events(Events),
    /// Run COMMAND in a tracked cgroup of its own, and report what it used
    ///
    /// Without a running engine, one is started for COMMAND alone and ended with it; all figures are then COMMAND's.
    /// While an engine is running, COMMAND's cgroup is created below one that it tracks (--cgroup); figures of the CPUs
    /// then cover the whole engine during that time, and faults, hits and misses lack cgroups that COMMAND created and
    /// removed.
    ///
    /// The report goes to standard error; standard output is COMMAND's. Peak and end include stocked pages, up to a
    /// batch for each CPU and slot; those stocked at the end are reported as stranded.
    ///
    /// SIGINT, SIGQUIT and SIGTERM are passed to COMMAND; after SIGTERM it is killed if it has not ended within two
    /// seconds. The report is printed in any case.
    Stat(Stat),
    /// Record what COMMAND, or a running cgroup, uses and reads, to judge limits by it
    ///
    /// Records usage, the part of it that is needed, the largest processes at each peak, processes that start and end,
    /// and a sample of the accesses to page cache. Once COMMAND runs, an existing FILE is renamed to FILE.old. A
    /// recording cut short by a full disk or a kill can be read up to that point. Only its owner can read the file; a
    /// FILE that is a symbolic link to a file is refused.
    ///
    /// COMMAND runs in a tracked cgroup of its own. Without a running engine, one is started for the recording and
    /// ended with it. While an engine is running, PATH must be a cgroup that it tracks: the one to record or, with
    /// COMMAND, the one below which COMMAND's is created. Recording does not change what is recorded.
    ///
    /// The recording of a cgroup ends at SIGINT, SIGQUIT or SIGTERM, after N seconds, or when the cgroup is removed.
    /// These signals are passed to COMMAND; after SIGTERM it is killed if it has not ended within two seconds.
    Record(Record),
    /// Show what limits would do to a recorded run
    ///
    /// For each limit: whether the run fits, has page cache reclaimed, is slow (by 5 % or more) or runs out of memory
    /// (oom); what would be read again, and how much slower that is; and which process would be killed, and when.
    ///
    /// Exit code 10 if a --limit makes it slow, 11 if one would get a process killed.
    Rehearse(Rehearse),
    /// Show what other batches and slots would do with recorded charges
    ///
    /// Runs the charges and uncharges of a recording ("memstock record --charges") through the algorithm again with
    /// each setting, and shows how many pages came from a stock (hits), how often the shared counters were touched, how
    /// often stocked pages were given back unused (drains), and how much was charged but unused (stranded), at most and
    /// at the end.
    Replay(Replay),
    /// Recommend limits for a recorded program
    Recommend(Recommend),
    /// Run COMMAND once under a limit, and compare with what a recording predicted
    ///
    /// The kernel's own memory controller enforces the limit; where it is not mounted, memstock does. Exit code 10 if
    /// COMMAND was slow, 11 if a process was killed; otherwise COMMAND's own.
    Verify(Verify),
    /// Draw what limits would do to a recorded run
    Report(Report),
    /// Show what memstock needs or can use, and whether this host has it
    ///
    /// Each facility is found, absent, or unknown (cannot be determined without root). Attaches to the tracepoints for
    /// a moment. Exit code 0 if everything required is found; 121 if the host lacks any of it; 120 if only privilege is
    /// missing, or what is unknown without it.
    Doctor(Doctor),
    /// End the running engine, or remove what one left behind
    Stop,
    /// Print a shell's completion script for verbs and flags
    ///
    /// For bash: memstock completions bash > /etc/bash_completion.d/memstock
    Completions(Completions),
    /// Print the manual page of memstock, or of a verb
    ///
    /// To read it: memstock man run | man -l -
    Man(Man),
    /// Unfreeze the cgroups that a daemon holds if it dies (started by `run`)
    #[command(hide = true)]
    Guard,
}

/// The command line without hidden verbs, for manual pages and completions.
pub fn shown() -> Command {
    let all = Cli::command();
    let shown: Vec<_> = all.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    Command::new("memstock")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().cloned().unwrap_or_default())
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommand_value_name("VERB")
        .subcommands(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
    }
}
