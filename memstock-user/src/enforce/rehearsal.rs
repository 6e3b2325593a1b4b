//! What would have been done at a limit: for `--observe`, which does nothing.

use std::collections::BTreeMap;

use anyhow::Result;
use memstock_common::{Event, StockWord, index_of};

use super::task::{Task, tasks};
use super::victim;
use crate::cgroup::{Cgroup, CgroupMount};
use crate::engine::Engine;
use crate::journal::Record;
use crate::journal::record::{self, by_cpu, named};

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
) -> Result<Record> {
    let own = victim::own_cgroup_below(&full.path);
    let spared = |task: &Task| own.as_ref().is_some_and(|own| task.is_in(own));
    let over_pages = hit.usage.saturating_sub(hit.limit) + hit.nr_pages;
    let stocked = stocked(engine, index)?;
    let victim = victim::choose(tasks(&full.dir), hit.limit, spared);
    Ok(Record::WouldEnforce {
        ancestor: named(full),
        cgroup: record::Cgroup::new(hit.cgroup_id, mount.path_of(hit.cgroup_id).as_deref()),
        over_pages,
        drain_is_enough: stocked.values().sum::<u64>() >= over_pages,
        stocked: by_cpu(&stocked),
        victim: victim.as_ref().map(Into::into),
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
