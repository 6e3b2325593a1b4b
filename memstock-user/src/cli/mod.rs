//! The command line: flags and their values, nothing that acts.

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
pub use self::forecast::{Format, Otherwise, Recommend, Rehearse, Replay, Report, Verify};
pub use self::kernel::Kernel;
pub use self::named::Named;
pub use self::read::{Audit, Doctor, Events, Show};
pub use self::record::Record;
pub use self::run::Run;
pub use self::stat::Stat;
pub use self::top::{Top, When};
pub use self::value::{Batch, Limit, Swap};

/// How the exit codes read in `--help`.
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
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub enum Verb {
    /// Charge the pages of cgroups and show them live until interrupted
    ///
    /// An engine whose daemon was killed goes on charging, and is adopted: what it tracks keeps its counters,
    /// cgroups named here are added, and limits given here are set.
    Run(Run),
    /// Show one sample of the running engine
    Show(Show),
    /// Show the running engine live: cgroups, CPUs and events
    ///
    /// Where standard output is not a terminal that can be drawn on, prints plain samples, as with
    /// --batch-mode. "?" shows the keys.
    Top(Top),
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
    /// Show what the kernel's own memory controller has in stock on each CPU, and for whom
    ///
    /// The kernel charges a batch of pages at once and keeps what is left in slots of each CPU. Those pages are in
    /// the usage of their memory cgroup and of all above it, and nobody uses them: net is the usage without them.
    /// Each CPU is looked at by itself, from an interrupt; error is by how many pages the slots differed before and
    /// after the usage was read. Bytes are of pages that are charged and in stock for small objects; they are part of
    /// net.
    ///
    /// Nothing is changed, nothing is attached without --watch, and no engine is needed. The memory controller may be
    /// on cgroup v1 or v2. Exit code 121 if the kernel has no stock in a way that memstock knows.
    ///
    /// A watch ends at SIGINT or SIGTERM, or after N samples.
    Kernel(Kernel),
    /// Print what happened: limits, drains, cgroups that came and went, losses
    Events(Events),
    /// Run COMMAND in a tracked cgroup of its own, and tell what it used
    ///
    /// Without a running engine, one is started for COMMAND alone and ended with it: then all figures are
    /// COMMAND's. While an engine is running, COMMAND's cgroup is made below one that it tracks (--cgroup), and the
    /// figures of the CPUs are those of the whole engine in the meantime; cgroups that COMMAND made and removed
    /// are then missing in faults, hits and misses.
    ///
    /// The report goes to standard error, so that standard output is COMMAND's. Peak and end include stocked
    /// pages, up to a batch for each CPU and slot; those stocked at the end are told as stranded.
    ///
    /// SIGINT is handed to COMMAND. At SIGTERM it gets one, too, and is killed if it has not ended after two
    /// seconds. The report comes all the same.
    Stat(Stat),
    /// Record what COMMAND, or a cgroup that runs already, uses and reads, to judge every limit by it
    ///
    /// Writes usage, what of it is needed, who holds most at each peak, processes that come and go, and a sample of
    /// the accesses to page cache. Once COMMAND runs, the file of a recording before this one is renamed to
    /// FILE.old. One that is cut short, by a full disk or a kill, can be read up to there. Only its owner reads the
    /// file; a FILE that is a symbolic link to a file is refused.
    ///
    /// COMMAND runs in a tracked cgroup of its own. Without a running engine, one is started for the recording and
    /// ended with it. While an engine is running, PATH is a cgroup that it tracks: the one to be recorded or, with
    /// COMMAND, the one below which COMMAND's is made. What is recorded is not touched.
    ///
    /// A recording of a cgroup ends at SIGINT or SIGTERM, after N seconds, or when the cgroup is removed. SIGINT is
    /// handed to COMMAND; at SIGTERM it gets one, too, and is killed if it has not ended after two seconds.
    Record(Record),
    /// Say what limits would do to a recorded run
    ///
    /// Of each limit: whether the run fits, has page cache reclaimed, is slow (by 5 % or more) or out of memory
    /// (oom); what would be read again, how much slower that is; and who would be killed, when.
    ///
    /// Exit code 10 if a --limit makes it slow, 11 if one would get a process killed.
    Rehearse(Rehearse),
    /// Say what other batches and slots would do with recorded charges
    ///
    /// Runs the charges and uncharges of a recording ("memstock record --charges") through the algorithm once more,
    /// for each setting: how many pages came from a stock (hits), how often the shared counters were touched, how
    /// often stocked pages were given back unused (drains), and how much was charged and not in use (stranded), at the
    /// most and at the end.
    Replay(Replay),
    /// Say which limits to set for a recorded program
    Recommend(Recommend),
    /// Run COMMAND under a limit, once, and compare with what a recording foretold
    ///
    /// The limit is of the kernel's own memory controller, or where that is not mounted, of memstock.
    /// Exit code 10 if it was slow, 11 if anybody was killed; else COMMAND's own.
    Verify(Verify),
    /// Draw what limits would do to a recorded run
    Report(Report),
    /// Say what memstock needs or can use, and whether this host has it
    ///
    /// Each facility is found, absent, or unknown: not to be told without root. The tracepoints are attached to
    /// for a moment. Exit code 0 if all that is required is found; 121 if the host lacks any of it; 120 if only
    /// privilege is missing, or what is unknown without it.
    Doctor(Doctor),
    /// End the running engine, or remove what one left behind
    Stop,
    /// Print the script by which a shell completes verbs and flags
    ///
    /// For bash: memstock completions bash > /etc/bash_completion.d/memstock
    Completions(Completions),
    /// Print a manual page: that of memstock, or of a verb
    ///
    /// To read it: memstock man run | man -l -
    Man(Man),
    /// Let go of what a daemon holds, when it dies (started by `run`)
    #[command(hide = true)]
    Guard,
}

/// The command line as people are to see it, without the verbs that memstock has for itself.
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
