//! Measures the swap use of tracked cgroups, where swap is charged. Pages may move between two looks; the next look
//! corrects memory+swap.

use anyhow::Result;
use memstock_common::NO_INDEX;
use memstock_common::counter::needed;

use crate::daemon::tree::Tree;
use crate::enforce::task::swapped;
use crate::engine::Engine;
use crate::host::cgroup::{ById, CgroupMount};
use crate::host::meminfo;
use crate::host::process::processes;

/// What tasks have in swap.
pub struct Seen {
    /// By cgroup.
    cgroups: Vec<Swapped>,
    /// Pages of the host that are in swap, and in memory as well.
    cached: u64,
}

/// What the tasks of a cgroup have, in pages.
struct Swapped {
    id: u64,
    swapped: u64,
    mapped: u64,
}

/// Asks the tasks of the cgroups with these ids: reads one file of each process. Without swap, nothing is in it: before
/// Linux 6.2 a thread can keep 64 changes of its counts to itself, until it faults again.
pub fn look(mount: &CgroupMount, ids: &[u64], has_swap: bool) -> Seen {
    let of = |&id: &u64| {
        let ById::Found(cgroup) = mount.cgroup_of(id) else { return None };
        let each = processes(&cgroup.dir).ok()?.into_iter().map(swapped);
        let add = |(a, b), (c, d)| (a + c, b + d);
        let (swapped, mapped) = each.fold((0, 0), add);
        let swapped = if has_swap { swapped } else { 0 };
        Some(Swapped { id, swapped, mapped })
    };
    Seen { cgroups: ids.iter().filter_map(of).collect(), cached: meminfo("SwapCached") }
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
pub fn set(engine: &Engine, tree: &Tree<'_>, seen: &Seen) -> Result<()> {
    for &Swapped { id, swapped, mapped } in &seen.cgroups {
        let Some(index) = tree.index_of(id) else { continue };
        let counter = engine.counter(index)?;
        // Pages in the swap cache that nobody has mapped are charged as memory: at most those that are needed.
        let needed = needed(counter.memory.usage, counter.file);
        let cached = seen.cached.min(needed.saturating_sub(mapped));
        let nr_pages = swapped.saturating_sub(cached);
        if nr_pages != counter.swapped {
            engine.control().swapped(index, nr_pages)?;
        }
    }
    Ok(())
}
