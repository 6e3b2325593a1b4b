//! The records of the event stream as one type: what can happen, with the serial form. Nothing here
//! reads a clock or a file.
//!
//! `docs/events.md` explains every field. Fields that count pages end in `pages`; all other sizes are bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use memstock_common::stat::Stat;
use serde::{Deserialize, Serialize};

pub use super::cgroup::{Cgroup, named};
pub use super::victim::Victim;

/// One line of the stream.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Entry {
    /// Number of the record; a daemon that adopts an engine continues it.
    pub seq: u64,
    /// When it happened: ns since boot (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// The same by the wall clock, for people.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub record: Record,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, strum::EnumDiscriminants)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[strum_discriminants(name(Kind), vis(pub(crate)))]
#[strum_discriminants(
    derive(strum::EnumCount, strum::VariantNames),
    strum(serialize_all = "kebab-case")
)]
pub enum Record {
    /// A batch did not fit under a limit: the early warning.
    LimitNear(Limit),
    /// Not even the pages that were needed fitted.
    LimitHit(Limit),
    /// Stocks were given back.
    Drain {
        /// The reason.
        why: Why,
        /// The cgroup whose subtree was drained; none for all cgroups.
        cgroup: Option<Cgroup>,
        /// Pages given back by each CPU.
        cpus: Vec<CpuPages>,
        /// Pages given back in all.
        nr_pages: u64,
        /// How long it took.
        took_ns: u64,
        /// Time from the kernel's event to the last stock, if an event was the reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_event_ns: Option<u64>,
        /// Further requests that this drain served.
        merged: u64,
    },
    /// Memory was reclaimed, or an attempt was made.
    Reclaim {
        /// The cgroup that memory was reclaimed from.
        cgroup: Cgroup,
        /// The method.
        means: ReclaimMethod,
        /// Pages that were asked for.
        tried_pages: u64,
        /// Pages by which usage fell.
        gained_pages: u64,
        /// How long it took.
        took_ns: u64,
    },
    /// A task was killed because nothing else made room.
    OomKill {
        /// The cgroup that is over its limit.
        ancestor: Cgroup,
        /// The victim.
        #[serde(flatten)]
        victim: Victim,
        /// Whether all tasks of `ancestor` were killed with it.
        group: bool,
        /// Time from the limit hit to the kill.
        after_ns: u64,
    },
    /// Nothing made room, and nobody may be killed.
    NoVictim {
        /// The cgroup that is over its limit.
        ancestor: Cgroup,
    },
    /// Nothing made room, but only page cache is above the limit, and nobody is killed for that.
    CacheOverLimit {
        /// The cgroup that is over its limit.
        ancestor: Cgroup,
        /// Pages above the limit.
        over_pages: u64,
        /// Pages that the kernel could not reclaim, at or below the limit.
        needed_pages: u64,
        /// Pages of page cache.
        file_pages: u64,
    },
    /// What would have been done at a limit, with `--observe`.
    WouldEnforce {
        /// The cgroup that is over its limit.
        ancestor: Cgroup,
        /// The cgroup that was being charged.
        cgroup: Cgroup,
        /// Pages above the limit.
        over_pages: u64,
        /// Pages that the kernel could not reclaim.
        needed_pages: u64,
        /// Pages of page cache that it could reclaim.
        file_pages: u64,
        /// Pages stocked for the subtree.
        stocked: Vec<CpuPages>,
        /// Whether draining these would have made room.
        drain_is_enough: bool,
        /// The task that would have been killed; none unless more is needed than the limit allows.
        #[serde(flatten)]
        victim: Option<Victim>,
    },
    /// A CPU went offline.
    CpuDead {
        /// Number of the CPU.
        cpu: u32,
    },
    /// A CPU came online.
    CpuOnline {
        /// Number of the CPU.
        cpu: u32,
    },
    /// A cgroup is charged from now on.
    CgroupAdded {
        /// The cgroup.
        cgroup: Cgroup,
    },
    /// A tracked cgroup was removed; its pages may be left.
    CgroupDying {
        /// The cgroup.
        cgroup: Cgroup,
    },
    /// No page is charged to a dying cgroup any more, and its counter is free.
    CgroupRemoved {
        /// The cgroup.
        cgroup: Cgroup,
    },
    /// Pages whose free was missed were uncharged.
    Healed {
        /// Number of pages.
        nr_pages: u64,
    },
    /// A counter of losses rose, or a reader missed records.
    Lost {
        /// The name of the counter.
        counter: String,
        /// How much it rose by.
        by: u64,
    },
    /// A daemon has taken over the engine of one that died.
    EngineAdopted {
        /// Where the engine is pinned.
        pins: String,
    },
    /// A part of the daemon failed; it is tried again.
    PartFailed {
        /// The part.
        part: String,
        /// The error.
        error: String,
    },
    /// A part of the daemon works again.
    PartRecovered {
        /// The part.
        part: String,
    },
    /// The configuration was read again, and this differs from what is in force.
    ConfigChanged {
        /// The cgroup concerned; none for a setting.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<Cgroup>,
        /// The key; `cgroup` if the difference is whether the cgroup is named.
        key: String,
        /// The value that was in force, as written in the file.
        from: String,
        /// The value in the file now.
        to: String,
        /// What came of the change.
        outcome: Outcome,
        /// Why it was refused, or what remains.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// The configuration was read again, and all differences were reported.
    ConfigReloaded {
        /// The configuration file.
        file: String,
        /// Changes that are in force.
        done: u64,
        /// Changes that could not be made.
        refused: u64,
        /// Changes that the next start makes.
        needs_restart: u64,
    },
    /// The configuration was read again, and nothing changed because it has mistakes.
    ConfigRefused {
        /// The configuration file.
        file: String,
        /// Number of mistakes reported on standard error.
        mistakes: u64,
    },
    /// The engine ended. Nothing follows.
    Ended,
}

/// What came of a change in the configuration.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Outcome {
    /// It is in force.
    Done,
    /// It could not be made; the next reading tries again.
    Refused,
    /// It cannot change while the engine runs.
    NeedsRestart,
}

/// A limit that was reached.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Limit {
    /// The cgroup that was being charged.
    pub cgroup: Cgroup,
    /// The cgroup whose limit it is.
    pub ancestor: Cgroup,
    /// The resource that is limited.
    pub resource: Resource,
    /// Pages that did not fit.
    pub nr_pages: u64,
    /// Usage of the ancestor in bytes.
    pub usage: u64,
    /// Limit of the ancestor in bytes.
    pub limit: u64,
}

/// A resource that can be limited.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Somebody asked.
    Asked,
    /// The kernel began to reclaim.
    Reclaim,
    /// A limit is near.
    LimitNear,
    /// A limit was reached.
    LimitHit,
    /// The CPU went offline.
    CpuDead,
}

/// How memory is reclaimed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ReclaimMethod {
    /// `memory.reclaim` of the cgroup.
    MemoryReclaim,
    /// `MADV_PAGEOUT` on mappings of its tasks that have `MADV_FREE`d pages.
    Lazyfree,
    /// `POSIX_FADV_DONTNEED` on its clean page cache, whatever file it belongs to.
    Fadvise,
    /// `MADV_PAGEOUT` on what its tasks have mapped.
    Pageout,
}

/// Pages that one CPU has or gave back.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CpuPages {
    /// Number of the CPU.
    pub cpu: u32,
    /// Number of pages.
    pub nr_pages: u64,
}

/// Pages by CPU.
pub fn by_cpu(cpus: &BTreeMap<u32, u64>) -> Vec<CpuPages> {
    cpus.iter().map(|(&cpu, &nr_pages)| CpuPages { cpu, nr_pages }).collect()
}

/// A time in the unit of the stream.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Record {
    /// A counter rose.
    pub fn lost(counter: Stat, by: u64) -> Self {
        Self::Lost { counter: counter.name.into(), by }
    }
}
