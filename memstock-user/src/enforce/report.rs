//! What was done at a limit, or would have been, as people read it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::reclaim::Means;
use super::rehearsal::Rehearsal;
use super::task::Task;
use crate::cgroup::display;
use crate::host::page_size;

/// One thing that was done, or found, at a limit. Counts are pages, cgroups are paths.
#[derive(Clone, Debug)]
pub enum Report {
    /// Stocks of the subtree were given back.
    Drain {
        /// The cgroup at its limit.
        cgroup: PathBuf,
        /// Pages by CPU.
        drained: BTreeMap<u32, u64>,
        /// Time it took.
        took: Duration,
    },
    /// Memory of the subtree was reclaimed, or was to be.
    Reclaim {
        /// The cgroup at its limit.
        cgroup: PathBuf,
        /// How.
        means: Means,
        /// Pages that were wanted.
        wanted: u64,
        /// Pages by which the usage fell.
        gained: u64,
        /// Time it took.
        took: Duration,
    },
    /// A task was killed.
    OomKill {
        /// The cgroup at its limit.
        cgroup: PathBuf,
        /// Who it was.
        victim: Task,
        /// Whether all others of the cgroup were killed as well.
        is_group: bool,
        /// Time since the limit was met.
        after: Duration,
    },
    /// Nobody was left that could be killed.
    NoVictim {
        /// The cgroup at its limit.
        cgroup: PathBuf,
    },
    /// What would have been done.
    Rehearsal(Rehearsal),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain { cgroup, drained, took } => {
                write!(f, "drain cgroup={} why=limit-hit nr_pages=", display(cgroup))?;
                write!(f, "{}", drained.values().sum::<u64>())?;
                for (cpu, nr_pages) in drained.iter().filter(|&(_, &nr_pages)| nr_pages > 0) {
                    write!(f, " cpu{cpu}={nr_pages}")?;
                }
                write!(f, " time_us={}", took.as_micros())
            }
            Self::Reclaim { cgroup, means, wanted, gained, took } => write!(
                f,
                "reclaim cgroup={} means={means} wanted={wanted} gained={gained} time_us={}",
                display(cgroup),
                took.as_micros()
            ),
            Self::OomKill { cgroup, victim, is_group, after } => write!(
                f,
                "oom-kill ancestor={} {} group={is_group} after_us={}",
                display(cgroup),
                Victim(victim),
                after.as_micros()
            ),
            Self::NoVictim { cgroup } => {
                write!(f, "no-victim ancestor={}", display(cgroup))
            }
            Self::Rehearsal(rehearsal) => rehearsal.fmt(f),
        }
    }
}

/// A victim as `key=value` words.
pub(super) struct Victim<'a>(pub(super) &'a Task);

impl fmt::Display for Victim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Task { pid, comm, rss, swap, adj, started: _ } = self.0;
        let bytes = page_size();
        let comm = display(comm).replace(' ', "\\x20");
        write!(f, "victim={pid} comm={comm} rss={} swap={} adj={adj}", rss * bytes, swap * bytes)
    }
}
