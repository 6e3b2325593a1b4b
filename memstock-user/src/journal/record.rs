//! What can happen, as one type: the records of the event stream, with their serial form. Nothing here
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
        /// From the kernel's event to the last stock, if an event was the reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_event_ns: Option<u64>,
        /// Further requests that this drain served.
        merged: u64,
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
    /// A task was killed because nothing else made room.
    OomKill {
        /// The cgroup that is over its limit.
        ancestor: Cgroup,
        /// The victim.
        #[serde(flatten)]
        victim: Victim,
        /// Whether all tasks of the cgroup over its limit went with it.
        group: bool,
        /// From the limit to the kill.
        after_ns: u64,
    },
    /// Nothing made room, and there is nobody that may be killed.
    NoVictim {
        /// The cgroup that is over its limit.
        ancestor: Cgroup,
    },
    /// Nothing made room, and nobody is killed for it: what is above the limit is page cache.
    CacheOverLimit {
        /// The cgroup that is over its limit.
        ancestor: Cgroup,
        /// Pages above the limit.
        over_pages: u64,
        /// Pages that the kernel could not take back, at or below the limit.
        needed_pages: u64,
        /// Page cache.
        file_pages: u64,
    },
    /// What would have been done at a limit, were it not only observed.
    WouldEnforce {
        /// The cgroup that is over its limit.
        ancestor: Cgroup,
        /// The cgroup that was being charged.
        cgroup: Cgroup,
        /// Pages above the limit.
        over_pages: u64,
        /// Pages that the kernel could not take back.
        needed_pages: u64,
        /// Page cache that it could.
        file_pages: u64,
        /// Pages stocked for the subtree.
        stocked: Vec<CpuPages>,
        /// Whether giving those back would have made room.
        drain_is_enough: bool,
        /// Who would have been killed; nobody while what is needed is not above the limit.
        #[serde(flatten)]
        victim: Option<Victim>,
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
    /// No page is a dying cgroup's own any more, and its counter is free.
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
    /// A daemon has taken over the engine of one that died.
    EngineAdopted {
        /// Where the engine is pinned.
        pins: String,
    },
    /// A part of the daemon does not work; it is tried again.
    PartFailed {
        /// Which.
        part: String,
        /// Why.
        error: String,
    },
    /// It works again.
    PartRecovered {
        /// Which.
        part: String,
    },
    /// The configuration was read again, and this is different.
    ConfigChanged {
        /// Whose; none of a setting.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cgroup: Option<Cgroup>,
        /// The key; `cgroup` for whether it is named.
        key: String,
        /// What was in force, as it reads in the file.
        from: String,
        /// What is to be.
        to: String,
        /// What came of it.
        outcome: Outcome,
        /// Why it was refused, or what goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// The configuration was read again, and all differences told of.
    ConfigReloaded {
        /// The file.
        file: String,
        /// Changes that are in force.
        done: u64,
        /// Changes that could not be made.
        refused: u64,
        /// Changes that the next start makes.
        needs_restart: u64,
    },
    /// The configuration was read again, and nothing changed because of mistakes in it.
    ConfigRefused {
        /// The file.
        file: String,
        /// How many mistakes standard error has.
        mistakes: u64,
    },
    /// The engine ended. Nothing follows.
    Ended,
}

/// What came of a difference between two readings of the configuration.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Outcome {
    /// It is in force.
    Done,
    /// It could not be made, and is tried again with the next reading.
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
    /// Of what.
    pub resource: Resource,
    /// Pages that did not fit.
    pub nr_pages: u64,
    /// Usage of the ancestor, bytes.
    pub usage: u64,
    /// Limit of the ancestor, bytes.
    pub limit: u64,
}

/// Which counter is limited.
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
    /// The kernel reclaims.
    Reclaim,
    /// A limit is near.
    LimitNear,
    /// A limit was reached.
    LimitHit,
    /// The CPU is gone.
    CpuDead,
}

/// How memory is reclaimed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// `memory.reclaim` of the cgroup.
    MemoryReclaim,
    /// `MADV_PAGEOUT` on mappings of its tasks that have `MADV_FREE`d pages.
    Lazyfree,
    /// `POSIX_FADV_DONTNEED` on its clean page cache, whichever files that is of.
    Fadvise,
    /// `MADV_PAGEOUT` on what its tasks have mapped.
    Pageout,
}

/// What one CPU has or gave back.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CpuPages {
    /// Its number.
    pub cpu: u32,
    /// Pages.
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
