//! Owns the adoption of memory that cgroups already hold when they become tracked. Must run after the probes are
//! attached: they handle what is allocated or freed meanwhile.
//!
//! The owner of a page comes from the kernel's own memory controller if that knows the cgroup, and otherwise from the
//! pagemaps of the cgroup's tasks. Both are outdated as soon as they are read. So pages are adopted, which marks them,
//! and checked again; those that do not belong to the cgroup are given back, if the mark shows that they were neither
//! allocated nor freed since (`memstock_common::adopt`).

mod pfns;
mod tasks;
mod transfer;

pub(crate) use transfer::{Moved, Page, Transfer, windows};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use memstock_common::page::{CHUNK_PAGES, UNCONFIRMED, owner_in};
use memstock_common::{NO_INDEX, index_of};

use crate::engine::Engine;
use crate::engine::kernel_cgroup::{KernelCgroups, KernelMap, PageScan, PageView, Tracked};
use crate::host::cgroup::{CgroupMount, display};
use crate::host::pages::Kind;
use crate::model::Name;
use tasks::Tasks;

/// What was adopted.
#[derive(Clone, Debug, Default)]
pub struct Adopted {
    /// The cgroups that got pages.
    pub cgroups: Vec<CgroupAdopted>,
    /// The time it took.
    pub elapsed: Duration,
}

/// What one cgroup got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupAdopted {
    /// Which.
    pub name: Name,
    /// Pages charged to it.
    pub adopted: u64,
    /// Those that turned out not to be the cgroup's, and were given back.
    pub disowned: u64,
}

impl Adopted {
    /// Pages that were adopted and kept.
    pub fn nr_pages(&self) -> u64 {
        self.cgroups.iter().map(|cgroup| cgroup.adopted - cgroup.disowned.min(cgroup.adopted)).sum()
    }
}

/// A single short line.
impl fmt::Display for Adopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nr_pages, nr_cgroups) = (self.nr_pages(), self.cgroups.len());
        write!(f, "adopted {nr_pages} pages that {nr_cgroups} cgroups held already")?;
        write!(f, " in {:.2} s", self.elapsed.as_secs_f64())
    }
}

/// Charges to the cgroups `of`, by id, and their descendants what they hold and nobody owns yet.
///
/// If the kernel knows the cgroup: its user pages and page tables. Otherwise: the pages that only tasks of tracked
/// cgroups have mapped; the owner of unmapped page cache cannot be found.
///
/// # Errors
/// A map or a file in `/proc` cannot be read, or the engine refuses.
pub fn adopt(engine: &Engine, mount: &CgroupMount, of: &BTreeSet<u64>) -> Result<Adopted> {
    let started = Instant::now();
    let tracked = Tracked::read(engine, mount)?;
    let wanted = at_or_below(&tracked, of);
    let transfer = Transfer::new(engine, &tracked);
    let mut moved = Moved::default();
    let kernel = KernelCgroups::find(mount, &[], &tracked.roots())?;
    let map = kernel.map(&tracked);
    if !map.is_empty() {
        moved.add(&from_kernel(&transfer, &PageScan::open(engine, map)?, &wanted)?);
    }
    let tasks = Tasks { mount, tracked: &tracked, kernel: &kernel };
    if !tasks.roots().is_empty() {
        let scan = PageScan::open(engine, KernelMap::default())?;
        moved.add(&from_tasks(&transfer, &scan, &tasks, &wanted)?);
    }
    let adopted = Adopted { cgroups: by_name(&moved, &tracked), elapsed: started.elapsed() };
    for CgroupAdopted { name, adopted, disowned } in &adopted.cgroups {
        let path = name.path.as_deref().map(display).unwrap_or_default();
        log::info!("{path}: adopted {adopted} pages, gave {disowned} of them back");
    }
    Ok(adopted)
}

/// Gives back what was adopted for the cgroups `of` and their descendants, if it was neither allocated nor freed since:
/// undoes an interrupted adoption, which then starts again.
///
/// # Errors
/// A map cannot be read, or the engine refuses.
pub fn undo(engine: &Engine, mount: &CgroupMount, of: &BTreeSet<u64>) -> Result<()> {
    let tracked = Tracked::read(engine, mount)?;
    let wanted = at_or_below(&tracked, of);
    let transfer = Transfer::new(engine, &tracked);
    let owners = engine.owners()?;
    for number in 0..owners.len() {
        let Some(chunk) = owners.get(number) else { break };
        let first = number as u64 * u64::from(CHUNK_PAGES);
        let marked = (first..).zip(chunk.owners).filter(|&(_, entry)| entry & UNCONFIRMED != 0);
        let of_theirs = marked.map(|(pfn, entry)| Page {
            pfn,
            index: index_of(owner_in(entry)),
            is_file: false,
        });
        let pages: Vec<_> = of_theirs.filter(|page| wanted.contains(&page.index)).collect();
        transfer.disown(&pages)?;
    }
    Ok(())
}

/// The counters of the cgroups with these ids, and of their descendants.
fn at_or_below(tracked: &Tracked, ids: &BTreeSet<u64>) -> BTreeSet<u32> {
    let is_one = |index| tracked.counters().get(index).is_some_and(|one| ids.contains(&one.id));
    let all = tracked.counters().indices();
    all.filter(|&index| tracked.lineage(index).any(is_one)).collect()
}

/// Whether memstock charges pages of this kind individually, so that it can adopt those that the kernel charges: not
/// slab, where a page can hold objects of many cgroups.
pub(crate) fn is_adoptable(kind: Kind) -> bool {
    kind.is_user() || kind == Kind::PageTable
}

/// A page as read, for the counter `index`.
pub(crate) fn to_adopt(page: &PageView, index: u32) -> Page {
    Page { pfn: page.pfn, index, is_file: page.is_file.unwrap_or(true) }
}

/// What was moved, by name.
pub(crate) fn by_name(moved: &Moved, tracked: &Tracked) -> Vec<CgroupAdopted> {
    let mut all = BTreeMap::<u32, (u64, u64)>::new();
    for (&index, nr_pages) in &moved.adopted {
        all.entry(index).or_default().0 += nr_pages;
    }
    for (&index, nr_pages) in &moved.disowned {
        all.entry(index).or_default().1 += nr_pages;
    }
    all.into_iter()
        .filter(|(_, moved)| *moved != (0, 0))
        .map(|(index, (adopted, disowned))| CgroupAdopted {
            name: tracked.name(index),
            adopted,
            disowned,
        })
        .collect()
}

/// Adopts what the kernel charges to the memory cgroups that are counterparts of tracked ones.
fn from_kernel(transfer: &Transfer<'_>, scan: &PageScan, of: &BTreeSet<u32>) -> Result<Moved> {
    let mut moved = Moved::default();
    // One chunk after the other, so that each is soon read again and little is held in memory.
    scan.all(|seen| {
        let wanted: Vec<Page> = seen
            .iter()
            .filter(|page| page.index == NO_INDEX && is_adoptable(page.kind))
            .filter_map(|page| Some(to_adopt(page, scan.map().counter(page.number)?)))
            .filter(|page| of.contains(&page.index))
            .collect();
        moved.add(&transfer.adopt_as_kernel(scan, &wanted)?);
        Ok(())
    })?;
    Ok(moved)
}

/// Adopts what the tasks have mapped of cgroups that the kernel does not know.
fn from_tasks(
    transfer: &Transfer<'_>,
    scan: &PageScan,
    tasks: &Tasks<'_>,
    of: &BTreeSet<u32>,
) -> Result<Moved> {
    let mut held = tasks.held()?;
    held.retain(|(_, index)| of.contains(index));
    let pfns: Vec<u64> = held.iter().map(|&(pfn, _)| pfn).collect();
    let seen = scan.again(&pfns)?;
    // Drivers map pages of their own, and the zero pages belong to everybody. Pages outside the owner map were not
    // read.
    let held: BTreeMap<u64, u32> = held.into_iter().collect();
    let free = seen.iter().filter(|page| page.index == NO_INDEX && page.kind.is_user());
    let wanted = free.filter_map(|page| Some(to_adopt(page, *held.get(&page.pfn)?)));
    let wanted: Vec<_> = wanted.collect();
    let mut moved = Moved { adopted: transfer.adopt(&wanted)?, ..Moved::default() };
    // A page that is still mapped, and was neither allocated nor freed since, was the cgroup's when it was adopted.
    let mapped = tasks.mapped()?;
    let wrong: Vec<_> = wanted.into_iter().filter(|page| !mapped.has(page.pfn)).collect();
    moved.disowned = transfer.disown(&wrong)?;
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_below_are_meant_too() {
        let tree = [(0, NO_INDEX, Some("/a")), (1, 0, Some("/a/b")), (2, NO_INDEX, Some("/c"))];
        let tracked = Tracked::of(&tree);
        let id = |index: u32| tracked.counters().get(index).unwrap().id;
        assert_eq!(at_or_below(&tracked, &[id(0)].into()), [0, 1].into());
        assert_eq!(at_or_below(&tracked, &[id(1), 5].into()), [1].into());
        assert_eq!(at_or_below(&tracked, &[].into()), [].into());
    }
}
