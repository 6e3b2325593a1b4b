//! Measures the swap use of tracked cgroups, where swap is charged. Pages may move between two looks; the next look
//! corrects memory+swap.

use std::fs;

use anyhow::Result;
use memstock_common::NO_INDEX;
use memstock_common::counter::needed;

use crate::engine::Engine;
use crate::host::cgroup::{ById, Cgroup, CgroupMount};
use crate::host::process::{Status, directory, living, processes};
use crate::host::{figure, has_swap, meminfo};

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

/// What a process has, in pages.
struct Process {
    pid: i32,
    swapped: u64,
    /// What it has mapped without a file.
    mapped: u64,
}

/// Asks the tasks of the cgroups with these ids: reads one file of each process. Without swap, nothing is in it: before
/// Linux 6.2 a thread can keep 64 changes of its counts to itself, until it faults again.
pub fn look(mount: &CgroupMount, ids: &[u64], has_swap: bool) -> Seen {
    let of = |&id: &u64| {
        let ById::Found(cgroup) = mount.cgroup_of(id) else { return None };
        let pids = processes(&cgroup.dir).ok()?;
        let each: Vec<_> = pids.into_iter().filter_map(Process::look).collect();
        let swapped = if has_swap { sum(&each) } else { 0 };
        Some(Swapped { id, swapped, mapped: each.iter().map(|one| one.mapped).sum() })
    };
    Seen { cgroups: ids.iter().filter_map(of).collect(), cached: meminfo("SwapCached") }
}

/// What these processes have in swap. What they share since a fork counts once, as the kernel charges it.
fn sum(all: &[Process]) -> u64 {
    let swapped: Vec<_> = all.iter().filter(|one| one.swapped > 0).collect();
    match swapped[..] {
        [one] => one.swapped,
        // Takes the kernel some 60 ns a page.
        _ => swapped.iter().map(|one| share(one.pid).unwrap_or(one.swapped)).sum(),
    }
}

/// The pages of a process in swap, each divided by the number of those that have it.
fn share(pid: i32) -> Option<u64> {
    let smaps = fs::read_to_string(directory(pid).join("smaps_rollup")).ok()?;
    Some(figure(&smaps, "SwapPss"))
}

impl Process {
    fn look(pid: i32) -> Option<Self> {
        let status = living(pid).and_then(|dir| Status::read(&dir))?;
        let [swapped, anon, shmem] =
            ["VmSwap", "RssAnon", "RssShmem"].map(|name| status.pages(name));
        Some(Self { pid, swapped, mapped: anon + shmem })
    }
}

/// Reports them to the kernel half; skips cgroups that are no longer tracked, whose charge nobody would take back.
///
/// # Errors
/// The kernel refuses.
pub fn set(engine: &Engine, seen: &Seen) -> Result<()> {
    for &Swapped { id, swapped, mapped } in &seen.cgroups {
        let Some((index, counter)) = engine.find(id)? else { continue };
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

/// Looks again at a cgroup of which a task was killed, and at those below it.
///
/// # Errors
/// The engine cannot be read, or the kernel refuses.
pub(super) fn renew(engine: &Engine, mount: &CgroupMount, cgroup: &Cgroup) -> Result<()> {
    let counters = engine.counters();
    let swapped = counters.iter().filter(|(_, counter)| counter.swapped > 0);
    let ids: Vec<_> = swapped.map(|(_, counter)| counter.id).collect();
    let is_below = |id: &u64| mount.path_of(*id).is_some_and(|path| path.starts_with(&cgroup.path));
    let ids: Vec<_> = ids.into_iter().filter(is_below).collect();
    set(engine, &look(mount, &ids, has_swap()?))
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
