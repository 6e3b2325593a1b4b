//! What would have been done at a limit: for `--observe`, which does nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use memstock_common::{Event, StockWord, index_of};

use super::report::Victim;
use super::task::{Task, tasks};
use super::victim;
use crate::cgroup::{Cgroup, CgroupMount, display};
use crate::engine::Engine;
use crate::host::page_size;

/// A limit that was met under observation.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The cgroup whose limit it is.
    pub ancestor: PathBuf,
    /// The cgroup that was charged, unless it is gone.
    pub cgroup: Option<PathBuf>,
    /// Pages above the limit.
    pub over: u64,
    /// Pages stocked for the subtree, by CPU.
    pub stocked: BTreeMap<u32, u64>,
    /// Who would have been killed, had nothing been reclaimed.
    pub victim: Option<Task>,
}

impl Rehearsal {
    /// Whether giving stocked pages back would have made room.
    pub fn drain_is_enough(&self) -> bool {
        self.stocked.values().sum::<u64>() >= self.over
    }
}

/// Looks at a cgroup at its limit.
///
/// # Errors
/// The engine cannot be read.
pub(super) fn rehearse(
    engine: &Engine,
    mount: &CgroupMount,
    full: &Cgroup,
    index: u32,
    hit: &Event,
) -> Result<Rehearsal> {
    let own = std::process::id().cast_signed();
    Ok(Rehearsal {
        ancestor: full.path.clone(),
        cgroup: mount.path_of(hit.cgroup_id),
        over: hit.usage.saturating_sub(hit.limit) + hit.nr_pages,
        stocked: stocked(engine, index)?,
        victim: victim::choose(tasks(&full.dir), hit.limit, own, |_| false),
    })
}

/// Pages stocked, pending or in an uncharge batch for the subtree of a counter, by CPU.
fn stocked(engine: &Engine, subtree: u32) -> Result<BTreeMap<u32, u64>> {
    let counters = engine.counters();
    let is_below = |index: u32| {
        let parent = |&at: &u32| counters.get(&at).map(|counter| index_of(counter.parent as u32));
        std::iter::successors(Some(index), parent).any(|at| at == subtree)
    };
    let mut stocked = BTreeMap::new();
    for slot in 0..engine.info().slots {
        for (cpu, stock) in engine.stocks(slot)? {
            for word in [stock.word, stock.uncharge_batch].map(StockWord) {
                if word.charged() > 0 && is_below(index_of(word.owner())) {
                    *stocked.entry(cpu).or_default() += u64::from(word.charged());
                }
            }
        }
    }
    Ok(stocked)
}

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ancestor, cgroup, over, stocked, victim } = self;
        write!(f, "would-enforce ancestor={}", display(ancestor))?;
        if let Some(cgroup) = cgroup {
            write!(f, " cgroup={}", display(cgroup))?;
        }
        write!(f, " over={}", over * page_size())?;
        for (cpu, nr_pages) in stocked {
            write!(f, " stocked_cpu{cpu}={}", nr_pages * page_size())?;
        }
        write!(f, " drain_is_enough={}", self.drain_is_enough())?;
        match victim {
            Some(victim) => write!(f, " {}", Victim(victim)),
            None => write!(f, " victim=none"),
        }
    }
}
