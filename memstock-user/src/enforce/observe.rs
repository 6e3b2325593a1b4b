//! Reports what would have been done at a limit, for `--observe`. Does nothing else.

use std::collections::BTreeMap;

use anyhow::Result;
use memstock_common::{Event, Resource, Stock, StockWord, index_of};

use super::task::{Task, tasks};
use super::{reclaim, victim};
use crate::engine::needed::{Need, in_flight};
use crate::engine::{Counters, Engine, PerCpu};
use crate::host::cgroup::{Cgroup, CgroupMount};
use crate::journal::Record;
use crate::journal::record::{self, by_cpu, named};

/// Examines the cgroup `full`, which is at its limit.
///
/// # Errors
/// The engine cannot be read.
pub(super) fn would_enforce(
    engine: &Engine,
    mount: &CgroupMount,
    full: &Cgroup,
    index: u32,
    hit: &Event,
) -> Result<Record> {
    let own = victim::own_cgroup_below(&full.path)?;
    let spared = |task: &Task| own.as_ref().is_some_and(|own| task.is_in(own));
    let over_pages = hit.usage.saturating_sub(hit.limit) + hit.nr_pages;
    let counters = engine.counters();
    let stocks = engine.all_stocks()?;
    let flights = in_flight(|at| counters.parent(at), stocks.iter().map(|(_, stock)| stock));
    let flight = flights.get(&index).copied().unwrap_or_default();
    let counter = engine.counter(index)?;
    let Need { file, needed } = match Resource::try_from(hit.resource) {
        Ok(Resource::Memsw) => Need::of_memsw(&counter, flight),
        _ => Need::of(&counter, flight),
    };
    let stocked = stocked(&counters, &stocks, index);
    let victim = if needed > hit.limit.saturating_add(counter.huge) {
        victim::choose(tasks(&full.dir), hit.limit, spared)
    } else {
        None
    };
    Ok(Record::WouldEnforce {
        ancestor: named(full),
        cgroup: record::Cgroup::new(hit.cgroup_id, mount.path_of(hit.cgroup_id).as_deref()),
        over_pages,
        needed_pages: needed,
        file_pages: file,
        drain_is_enough: stocked.values().sum::<u64>() >= over_pages,
        stocked: by_cpu(&stocked),
        victim: victim.as_ref().map(Into::into),
    })
}

/// Pages stocked, pending or in an uncharge batch for the subtree of a counter, by CPU.
fn stocked(counters: &Counters, stocks: &PerCpu<Stock<u64>>, subtree: u32) -> BTreeMap<u32, u64> {
    let below = reclaim::subtree(counters, subtree);
    let mut stocked = BTreeMap::new();
    for (cpu, stock) in stocks {
        for word in [stock.word, stock.uncharge_batch].map(StockWord) {
            if word.charged() > 0 && below.contains(&index_of(word.owner())) {
                *stocked.entry(*cpu).or_default() += u64::from(word.charged());
            }
        }
    }
    stocked
}
