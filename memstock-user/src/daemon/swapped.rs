//! What the tasks of tracked cgroups have in swap, where that is charged. Pages may go and come between two looks;
//! memory+swap is right again with the next one.

use anyhow::Result;

use crate::daemon::tree::Tree;
use crate::enforce::task::swapped;
use crate::engine::Engine;
use crate::host::cgroup::{ById, CgroupMount};
use crate::host::process::processes;

/// Pages in swap of the cgroups with these ids: reads a file of each of their processes.
pub fn look(mount: &CgroupMount, ids: &[u64]) -> Vec<(u64, u64)> {
    let pages = |&id: &u64| {
        let ById::Found(cgroup) = mount.cgroup_of(id) else { return None };
        Some((id, processes(&cgroup.dir).ok()?.into_iter().map(swapped).sum()))
    };
    ids.iter().filter_map(pages).collect()
}

/// Reports it to the kernel half. Not for cgroups that are no longer tracked: nobody would take it back.
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
