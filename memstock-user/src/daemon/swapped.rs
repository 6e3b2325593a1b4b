//! Measures the swap use of tracked cgroups, where swap is charged. Pages may move between two looks; the next look
//! corrects memory+swap.

use anyhow::Result;
use memstock_common::NO_INDEX;

use crate::daemon::tree::Tree;
use crate::enforce::task::swapped;
use crate::engine::Engine;
use crate::host::cgroup::{ById, CgroupMount};
use crate::host::meminfo;
use crate::host::process::processes;

/// Pages of the cgroups with these ids that are in swap alone. Reads one file of each of their processes.
///
/// Pages that are in memory as well, in the host's swap cache, are charged as memory. Whose they are is not known, so
/// each cgroup may have all of them.
pub fn look(mount: &CgroupMount, ids: &[u64]) -> Vec<(u64, u64)> {
    let cached = meminfo("SwapCached");
    let pages = |&id: &u64| {
        let ById::Found(cgroup) = mount.cgroup_of(id) else { return None };
        let pages: u64 = processes(&cgroup.dir).ok()?.into_iter().map(swapped).sum();
        Some((id, pages.saturating_sub(cached)))
    };
    ids.iter().filter_map(pages).collect()
}

/// Notes all tracked cgroups for adoption. What `swapoff` brings back is charged to whoever called it, or to nobody.
///
/// # Errors
/// A note cannot be made.
pub fn note_unadopted(engine: &Engine) -> Result<()> {
    let counters = engine.counters();
    let roots = counters
        .iter()
        .filter(|&(index, _)| counters.parent(index).is_none_or(|parent| parent == NO_INDEX));
    engine.pins().note_unadopted(roots.map(|(_, counter)| counter.id))
}

/// Reports them to the kernel half; skips cgroups that are no longer tracked, whose charge nobody would take back.
///
/// # Errors
/// The kernel refuses.
pub fn set(engine: &Engine, tree: &Tree<'_>, seen: &[(u64, u64)]) -> Result<()> {
    for &(id, nr_pages) in seen {
        if let Some(index) = tree.index_of(id)
            && nr_pages != engine.counter(index)?.swapped
        {
            engine.control().swapped(index, nr_pages)?;
        }
    }
    Ok(())
}
