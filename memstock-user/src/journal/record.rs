//! What can happen, as one type: the records of the event stream, with their serial form. Nothing here
//! reads a clock or a file.
//!
//! `docs/events.md` explains every field. Fields that count pages end in `pages`; all other sizes are bytes.

use std::path::Path;

use memstock_common::stat::Stat;
use serde::{Deserialize, Serialize};

use crate::cgroup::display;

/// One line of the stream.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Counts the records of an engine; a daemon that adopts one goes on with it.
    pub seq: u64,
    /// When it happened, ns since boot as the kernel half counts them (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// The same, by the wall clock, for people.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub record: Record,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// A batch did not fit under a limit: the early warning.
    LimitNear(Limit),
    /// Not even what was needed fitted.
    LimitHit(Limit),
    /// Stocks were given back.
    Drain {
        /// Who wanted it.
        why: Why,
        /// Only the stocks of this cgroup and those below it; none for all.
        cgroup: Option<Cgroup>,
        /// What each CPU gave back.
        cpus: Vec<CpuPages>,
        /// In all.
        nr_pages: u64,
        /// How long it took.
        took_ns: u64,
    },
    /// Memory was to be freed.
    Reclaim {
        /// Whose.
        cgroup: Cgroup,
        /// How.
        means: Means,
        /// Pages that were asked for.
        tried_pages: u64,
        /// Pages by which usage fell.
        gained_pages: u64,
        /// How long it took.
        took_ns: u64,
    },
    /// A task was killed because nothing else made room, or would have been.
    OomKill {
        /// The cgroup that is over its limit.
        ancestor: Cgroup,
        /// The victim's cgroup.
        cgroup: Cgroup,
        /// The victim.
        pid: u32,
        /// Its name.
        comm: String,
        /// Its resident pages.
        rss_pages: u64,
        /// Its swapped pages.
        swap_pages: u64,
        /// Its `oom_score_adj`.
        oom_score_adj: i32,
        /// Whether all of its cgroup goes with it.
        group: bool,
        /// Whether this is only what would have happened (`--observe`).
        would: bool,
    },
    /// A CPU went offline.
    CpuDead {
        /// Its number.
        cpu: u32,
    },
    /// A CPU came online.
    CpuOnline {
        /// Its number.
        cpu: u32,
    },
    /// A cgroup is charged from now on.
    CgroupAdded {
        /// Which.
        cgroup: Cgroup,
    },
    /// A tracked cgroup was removed; its pages may be left.
    CgroupDying {
        /// Which.
        cgroup: Cgroup,
    },
    /// The last page of a dying cgroup is gone, and its counter free.
    CgroupRemoved {
        /// Which.
        cgroup: Cgroup,
    },
    /// Pages whose free was lost were uncharged.
    Healed {
        /// How many.
        nr_pages: u64,
    },
    /// A counter of losses rose, or a reader missed records.
    Lost {
        /// The name of the counter.
        counter: String,
        /// By how much.
        by: u64,
    },
    /// The engine ended. Nothing follows.
    Ended,
}

/// A limit that was reached.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The cgroup that was being charged.
    pub cgroup: Cgroup,
    /// The cgroup whose limit it is.
    pub ancestor: Cgroup,
    /// Of what.
    pub resource: Resource,
    /// Pages that did not fit.
    pub nr_pages: u64,
    /// Usage of the ancestor, bytes.
    pub usage: u64,
    /// Limit of the ancestor, bytes.
    pub limit: u64,
}

/// A cgroup by id and name.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Cgroup {
    /// cgroup v2 id.
    pub id: u64,
    /// Path in the hierarchy, with what is not text escaped; none when it is not known any more.
    pub path: Option<String>,
}

impl Cgroup {
    /// Named as people see it.
    pub fn new(id: u64, path: Option<&Path>) -> Self {
        Self { id, path: path.map(display) }
    }
}

/// Which counter is limited.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Memory.
    Memory,
    /// Memory and swap.
    Memsw,
}

impl From<memstock_common::Resource> for Resource {
    fn from(resource: memstock_common::Resource) -> Self {
        match resource {
            memstock_common::Resource::Memory => Self::Memory,
            memstock_common::Resource::Memsw => Self::Memsw,
        }
    }
}

/// Why stocks are drained.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Somebody asked.
    Asked,
    /// The kernel reclaims.
    Reclaim,
    /// A limit is near or reached.
    LimitNear,
    /// The CPU is gone.
    CpuDead,
}

/// How memory is reclaimed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// `memory.reclaim` of the cgroup.
    MemoryReclaim,
    /// What cgroup v1 has, in the kernel's cgroup that stands for it.
    KernelCgroup,
    /// `process_madvise(MADV_PAGEOUT)` on the tasks.
    Pageout,
}

/// What one CPU gave back.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct CpuPages {
    /// Its number.
    pub cpu: u32,
    /// Pages.
    pub nr_pages: u64,
}

impl Record {
    /// A counter rose.
    pub fn lost(counter: Stat, by: u64) -> Self {
        Self::Lost { counter: counter.name.into(), by }
    }
}
