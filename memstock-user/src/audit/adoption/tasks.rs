//! Finds the pages that the tasks of tracked cgroups hold, where only their pagemaps tell. Must not change anything.
//!
//! A page counts as a cgroup's if only tasks of tracked cgroups have it mapped. A page that others map as well, such as
//! a library's or one still shared with a parent outside, may have been charged to anybody. If several of these tasks
//! map a page, it belongs to the first.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::pfns::PfnSet;
use crate::engine::kernel_cgroup::{KernelCgroups, Tracked, dir_of, directories};
use crate::host::cgroup::{CgroupMount, display};
use crate::host::pages::{KernelPages, mapped_pages};
use crate::host::process::processes_with_threads;

/// The tasks of the tracked cgroups that the kernel's memory controller does not know.
pub(super) struct Tasks<'a> {
    pub(super) mount: &'a CgroupMount,
    pub(super) tracked: &'a Tracked,
    pub(super) kernel: &'a KernelCgroups,
}

/// A page frame number, and the counter of the cgroup that has the page.
pub(super) type Held = (u64, u32);

impl Tasks<'_> {
    /// The top-most tracked cgroups that the kernel does not know.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        self.tracked.roots().into_iter().filter(|root| !self.kernel.knows(root)).collect()
    }

    /// The pages that only these tasks have mapped, ascending, each once.
    pub(super) fn held(&self) -> Result<Vec<Held>> {
        let (mut held, mut shared) = (Vec::new(), Vec::new());
        for (pid, index) in self.all() {
            let visited = mapped_pages(pid, |page| {
                let pages = if page.is_exclusive { &mut held } else { &mut shared };
                pages.push((page.pfn, index));
            });
            visited.with_context(|| format!("cannot read the pagemap of process {pid}"))?;
        }
        held.extend(nobody_elses(shared, &KernelPages::counts()?)?);
        // Unmapped by one task and mapped by the next while we read: the first one has it.
        held.sort_by_key(|&(pfn, _)| pfn);
        held.dedup_by_key(|&mut (pfn, _)| pfn);
        Ok(held)
    }

    /// All pages that these tasks have mapped now.
    pub(super) fn mapped(&self) -> Result<PfnSet> {
        let mut mapped = PfnSet::default();
        for (pid, _) in self.all() {
            mapped_pages(pid, |page| mapped.add(page.pfn))
                .with_context(|| format!("cannot read the pagemap of process {pid}"))?;
        }
        Ok(mapped)
    }

    /// Each process once, with the counter of its cgroup.
    fn all(&self) -> Vec<(i32, u32)> {
        let mut all = Vec::new();
        let mut known = HashSet::new();
        for root in self.roots() {
            for (below, dir) in directories(&dir_of(self.mount, &root)) {
                let path = root.join(below);
                let Some(index) = self.tracked.nearest(&path) else { continue };
                if self.kernel.knows(&path) {
                    continue;
                }
                match processes_with_threads(&dir) {
                    // Asked afterwards: these may be the tasks of another cgroup that was made there meanwhile.
                    Ok(_) if !self.is_there(index) => {}
                    Ok(pids) => all.extend(
                        pids.into_iter().filter(|&pid| known.insert(pid)).map(|pid| (pid, index)),
                    ),
                    // Removed meanwhile.
                    Err(error) => log::debug!("no tasks in {}: {error}", display(&path)),
                }
            }
        }
        all
    }

    /// Whether the cgroup of a counter is still at its path.
    fn is_there(&self, index: u32) -> bool {
        let id = self.tracked.counters().get(index).map(|counter| counter.id);
        id.zip(self.tracked.path(index)).is_some_and(|(id, path)| self.mount.is_at(id, path))
    }
}

/// Keeps the pages of which we know as many mappings as the kernel counts.
fn nobody_elses(mut mappings: Vec<Held>, counts: &KernelPages) -> io::Result<Vec<Held>> {
    // Stable: the first task stays the first.
    mappings.sort_by_key(|&(pfn, _)| pfn);
    let mut held = Vec::new();
    for mappings in mappings.chunk_by(|a, b| a.0 == b.0) {
        let mut count = [0];
        counts.read(mappings[0].0, &mut count)?;
        if mappings.len() as u64 >= count[0] {
            held.push(mappings[0]);
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::page_size;
    use crate::host::pages::own_pfn;

    /// A page of our own, mapped once, is ours; with a mapping that we do not know of, it is not.
    #[test]
    fn mappings_of_others_count() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let memory = vec![1u8; 2 * page_size() as usize];
        let pfn = own_pfn(memory[page_size() as usize..].as_ptr()).unwrap();
        let counts = KernelPages::counts().unwrap();
        assert_eq!(nobody_elses(vec![(pfn, 3)], &counts).unwrap(), [(pfn, 3)]);
        let twice = vec![(pfn, 3), (pfn, 4)];
        assert_eq!(nobody_elses(twice, &counts).unwrap(), [(pfn, 3)]);
        // The C library is mapped by many.
        let library = own_pfn((libc::getpid as *const ()).cast()).unwrap();
        assert_eq!(nobody_elses(vec![(library, 3)], &counts).unwrap(), []);
        drop(memory);
    }
}
