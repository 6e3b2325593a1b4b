//! One run of a cgroup, as `memstock record` saw it and `rehearse`, `recommend` and `report` judge it: what was used
//! and needed when, who ran, what was read of the page cache, and, for `replay`, what was charged. Plain data; `recording/format.rs` writes and reads it.
//!
//! Sizes are in pages of [`Header::page_size`] bytes; times are since the start of the run.

mod charges;
mod format;
mod frame;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use charges::{Charge, ChargeKind, Charger, Charges};
pub use read::{parse, read};
pub use write::Writer;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::workload::Workload;

/// A run, or as much of it as a file has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// Where, when and of what.
    pub header: Header,
    /// Usage and what it consists of, each time it changed; in the order of time.
    pub moments: Vec<Moment>,
    /// Who held most memory, at each new peak of what is needed.
    pub peaks: Vec<Peak>,
    /// Births, execs and deaths.
    pub tasks: Vec<TaskEvent>,
    /// Sampled accesses to page cache, in the order of time.
    pub accesses: Vec<Access>,
    /// The files that [`Access::file`] numbers.
    pub files: Vec<File>,
    /// What was charged; none if that was not recorded.
    pub charges: Option<Charges>,
    /// How it ended; none for a file that was cut off.
    pub end: Option<End>,
}

/// Where, when and of what a recording is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// memstock's version.
    pub version: String,
    /// The host's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// How that kernel reclaims.
    pub lru: Lru,
    /// Swap of the host, in pages.
    pub swap: u64,
    /// `/sys/kernel/mm/transparent_hugepage/enabled`, the chosen word.
    pub thp: String,
    /// CPUs that were online.
    pub cpus: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// The cgroup.
    pub cgroup: PathBuf,
    /// What people call it.
    pub name: Option<Workload>,
    /// The command; empty for a cgroup that ran already.
    pub command: Vec<String>,
    /// Start, in nanoseconds since 1970.
    pub started: u64,
    /// What could not be recorded on this kernel, or is coarser, a sentence each.
    pub assumes: Vec<String>,
}

impl Header {
    /// Whether its kernel is older than that version of Linux; one that is not understood is not.
    pub fn is_before(&self, major: u32, minor: u32) -> bool {
        // `6.12.117+deb12`
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(own)), Some(Ok(own_minor))) => (own, own_minor) < (major, minor),
            _ => false,
        }
    }
}

/// How a kernel reclaims page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lru {
    /// Active and inactive lists.
    #[default]
    Classic,
    /// Generations (`/sys/kernel/mm/lru_gen/enabled`).
    MultiGen,
}

/// What a cgroup held at one moment, those below it included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Duration,
    /// Highest usage since the moment before.
    pub usage: u64,
    /// Highest of what was needed since the moment before: usage that the kernel could not reclaim without swap.
    pub needed: u64,
    /// Page cache that could be reclaimed.
    pub file: u64,
    /// Of the page cache, dirty or under writeback.
    pub dirty: u64,
    /// Of the usage, locked (`mlock`).
    pub mlocked: u64,
    /// Of the usage, shared memory and tmpfs.
    pub shmem: u64,
    /// Kernel memory that memstock does not see, where the kernel's own controller tells: slab that can be reclaimed.
    pub slab_reclaimable: Option<u64>,
    /// As above: slab that cannot.
    pub slab_unreclaimable: Option<u64>,
    /// As above: kernel stacks.
    pub stacks: Option<u64>,
}

/// The largest tasks when what was needed reached a new peak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// When.
    pub at: Duration,
    /// What was needed then.
    pub needed: u64,
    /// The five whom the kernel would kill first, first of all the victim.
    pub tasks: Vec<Holder>,
}

/// A process and what it held.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The kernel's measure of whom to kill (`oom_badness`).
    pub badness: u64,
    /// Anonymous memory.
    pub anon: u64,
}

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    /// When.
    pub at: Duration,
    /// Whom.
    pub pid: u32,
    /// What.
    pub kind: TaskEventKind,
}

/// What can happen to a process.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum TaskEventKind {
    /// It was made, by `parent`.
    Born {
        /// Who made it.
        parent: u32,
    },
    /// It runs another program from now on.
    Exec {
        /// Name of the program.
        comm: String,
    },
    /// It is no more.
    Died,
    /// It looks at its limit, and may size itself by it: why that is thought (`JVM`).
    FollowsLimit {
        /// Why.
        why: String,
    },
}

/// A sampled access to a run of pages of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// When.
    pub at: Duration,
    /// Index into [`Recording::files`].
    pub file: u32,
    /// The first page.
    pub index: u64,
    /// How many.
    pub pages: u32,
    /// One in so many blocks was followed at this time: each page stands for so many.
    pub one_in: u32,
    /// What was done.
    pub kind: AccessKind,
}

/// What can happen to a page of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// `read(2)` and the like found it in the page cache.
    Read,
    /// It was mapped in, or a fault found it in the page cache.
    Mapped,
    /// It entered the page cache.
    Added,
    /// It left the page cache: truncated, dropped or reclaimed.
    Removed,
}

/// A file of which pages were followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Its device, as `stat(2)` has it.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Its path, if it was found while the file was open.
    pub path: Option<PathBuf>,
}

/// In [`End::lost`]: charges that found no room where they were to be read.
pub const CHARGES: &str = "charges";

/// How a recording ended.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct End {
    /// How long it was.
    #[serde(with = "format::as_micros")]
    pub at: Duration,
    /// Exit code of the command, 128 + signal; none for a cgroup that ran already.
    pub code: Option<i32>,
    /// Bytes that its tasks read from devices, as far as it is known.
    pub read_bytes: Option<u64>,
    /// Nanoseconds that the devices of its files took for a page, in the mean, while they were busy; none if they read and
    /// wrote next to nothing.
    pub read_ns_per_page: Option<u64>,
    /// What was lost, by the name of the loss.
    pub lost: Vec<(String, u64)>,
}
