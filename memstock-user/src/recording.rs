//! One run of a cgroup, recorded by `memstock record` and judged by `rehearse`, `recommend` and `report`: what was used
//! and needed when, which processes ran, what was read of the page cache and, for `replay`, what was charged. Plain
//! data; `recording/format.rs` gives its serial form.
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

/// A run, or the part of it that a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// Where and when it was recorded, and of what.
    pub header: Header,
    /// Usage and its parts, whenever they changed; in the order of time.
    pub moments: Vec<Moment>,
    /// The processes that held most memory, at each new peak of need.
    pub peaks: Vec<Peak>,
    /// Births, execs and deaths.
    pub tasks: Vec<TaskEvent>,
    /// Sampled accesses to page cache, in the order of time.
    pub accesses: Vec<Access>,
    /// The files that [`Access::file`] numbers.
    pub files: Vec<File>,
    /// The charges; `None` if they were not recorded.
    pub charges: Option<Charges>,
    /// How it ended; `None` for a file that was cut off.
    pub end: Option<End>,
}

/// Where and when a recording was made, and of what.
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
    /// The chosen word of `/sys/kernel/mm/transparent_hugepage/enabled`.
    pub thp: String,
    /// The number of online CPUs.
    pub cpus: u32,
    /// Page size in bytes.
    pub page_size: u32,
    /// The cgroup.
    pub cgroup: PathBuf,
    /// What people call it.
    pub name: Option<Workload>,
    /// The command; empty for a cgroup that was already running.
    pub command: Vec<String>,
    /// Start, in nanoseconds since 1970.
    pub started: u64,
    /// What this kernel could not record, or only coarsely, one sentence each.
    pub assumes: Vec<String>,
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

/// What a cgroup and those below it held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Duration,
    /// Highest usage since the moment before.
    pub usage: u64,
    /// Highest need since the moment before: usage that the kernel could not reclaim without swap.
    pub needed: u64,
    /// Page cache that could be reclaimed.
    pub file: u64,
    /// Page cache that is dirty or under writeback.
    pub dirty: u64,
    /// Locked pages (`mlock`), part of the usage.
    pub mlocked: u64,
    /// Shared memory and tmpfs, part of the usage.
    pub shmem: u64,
    /// Reclaimable slab, which memstock does not see; known where the kernel's own controller is enabled.
    pub slab_reclaimable: Option<u64>,
    /// As above: slab that cannot be reclaimed.
    pub slab_unreclaimable: Option<u64>,
    /// As above: kernel stacks.
    pub stacks: Option<u64>,
}

/// The largest tasks when the need reached a new peak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// When.
    pub at: Duration,
    /// The need at that time.
    pub needed: u64,
    /// The five that the kernel would kill first, the victim first.
    pub tasks: Vec<Holder>,
}

/// A process and what it held.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// The kernel's measure for choosing a victim (`oom_badness`).
    pub badness: u64,
    /// Anonymous memory.
    pub anon: u64,
}

/// Something that happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    /// When.
    pub at: Duration,
    /// The process.
    pub pid: u32,
    /// What happened.
    pub kind: TaskEventKind,
}

/// What can happen to a process.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum TaskEventKind {
    /// It was created by `parent`.
    Born {
        /// Its parent's process id.
        parent: u32,
    },
    /// It executed another program.
    Exec {
        /// Name of the program.
        comm: String,
    },
    /// It exited.
    Died,
    /// It reads its limit and may size itself by it.
    FollowsLimit {
        /// Why that is thought, such as `JVM`.
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
    /// The number of pages.
    pub pages: u32,
    /// One in so many blocks was followed at this time, so each page stands for so many.
    pub one_in: u32,
    /// What happened to the pages.
    pub kind: AccessKind,
}

/// What can happen to a page of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// `read(2)` or the like found it in the page cache.
    Read,
    /// It was mapped, or a fault found it in the page cache.
    Mapped,
    /// It entered the page cache.
    Added,
    /// It left the page cache: truncated, dropped or reclaimed.
    Removed,
    /// It was written to, and was clean before.
    Dirtied,
}

/// A file of which pages were followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Its device number, as in `stat(2)`.
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
    /// Its path, if it was found while the file was open.
    pub path: Option<PathBuf>,
    /// Whether it was mapped and is a program or a library (ELF), as far as that could be seen.
    pub is_program: bool,
}

/// The name in [`End::lost`] of charges that found no room in the ring buffer.
pub const CHARGES: &str = "charges";

/// How a recording ended.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct End {
    /// The length of the recording.
    #[serde(with = "format::as_micros")]
    pub at: Duration,
    /// Exit code of the command, or 128 + signal; `None` for a cgroup that was already running.
    pub code: Option<i32>,
    /// Bytes that its tasks read from devices, if known.
    pub read_bytes: Option<u64>,
    /// Average nanoseconds that the devices of its files took for a page while they were busy; `None` if they read and
    /// wrote next to nothing.
    pub read_ns_per_page: Option<u64>,
    /// The same for a page of a large request, as dirty pages are written.
    pub write_ns_per_page: Option<u64>,
    /// Microseconds in which its tasks waited for I/O (`some` of `io.pressure`), if the kernel tells.
    pub io_stalled_us: Option<u64>,
    /// What was lost, by name of the loss.
    pub lost: Vec<(String, u64)>,
    /// Why the run may need more than was seen, one sentence each.
    pub warnings: Vec<String>,
}
