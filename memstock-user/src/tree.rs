//! Owns that what the engine tracks is what the host has: the whole subtree of each cgroup named.
//! Cgroups made later are registered, removed ones closed, and their counters freed when their last
//! page is. Decides nothing about charging.
//!
//! It runs behind the host: until a new cgroup is registered, the kernel half charges its nearest
//! registered ancestor, and there the pages stay.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use memstock_common::NO_LIMIT;

use crate::cgroup::{ById, CgroupMount, display};
use crate::enforce::task::{pids_of, swapped};
use crate::engine::Engine;
use crate::host;

/// The tracked and the dying cgroups of an engine.
pub struct Tree<'a> {
    engine: &'a Engine,
    mount: &'a CgroupMount,
    /// Index of the counter of each tracked cgroup, by id.
    tracked: BTreeMap<u64, u32>,
    /// Cgroups that were made and not found: neither tracked nor known to be outside.
    unknown: BTreeSet<u64>,
    /// Counters of removed cgroups that are still to be closed.
    removed: Vec<u32>,
    /// Counters that wait for their last page to be freed.
    dying: Vec<u32>,
    /// Cgroups that could not be registered.
    left_out: u64,
}

impl<'a> Tree<'a> {
    /// What the engine tracks now.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn of(engine: &'a Engine, mount: &'a CgroupMount) -> Result<Self> {
        let open = engine.tracked()?;
        let (tracked, dying): (Vec<_>, Vec<_>) = engine
            .counters()
            .into_iter()
            .map(|(index, counter)| (counter.id, index))
            .partition(|(_, index)| open.contains(index));
        let dying = dying.into_iter().map(|(_, index)| index).collect();
        let tracked = tracked.into_iter().collect();
        Ok(Self {
            engine,
            mount,
            tracked,
            unknown: BTreeSet::new(),
            removed: Vec::new(),
            dying,
            left_out: 0,
        })
    }

    /// Registers every cgroup below the tracked ones, and closes those that are gone: all that may have
    /// happened unseen.
    pub fn catch_up(&mut self) {
        // Their removal may be among what was not heard of; if they are there, they are found now.
        self.unknown.clear();
        let ids: Vec<_> = self.tracked.keys().copied().collect();
        for id in ids {
            match self.mount.cgroup_of(id) {
                ById::Gone => self.removed(id),
                // Its removal is yet to be heard of, or the next catching up finds it.
                ById::Unknown => {}
                ById::Found(cgroup) => {
                    for below in self.mount.below(&cgroup) {
                        self.made(below.id);
                    }
                }
            }
        }
    }

    /// A cgroup was made: registers it if it is in the subtree of a tracked one.
    pub fn made(&mut self, id: u64) {
        let ById::Found(lineage) = self.mount.lineage(id) else {
            // The kernel tells of it a moment before it can be found (`TRACE_CGROUP_PATH(mkdir, …)` before
            // `kernfs_activate` in `cgroup_mkdir`). Only the news of its removal says that it is gone.
            self.unknown.insert(id);
            return;
        };
        let mut parent = None;
        // From the top: of two that were made, the lower may be heard of first.
        for cgroup in lineage {
            if let Some(&index) = self.tracked.get(&cgroup.id) {
                parent = Some(index);
            } else if parent.is_some() {
                match self.engine.register(cgroup.id, parent, NO_LIMIT, NO_LIMIT) {
                    Ok(index) => {
                        self.tracked.insert(cgroup.id, index);
                        parent = Some(index);
                    }
                    Err(error) => self.leave_out(&display(&cgroup.path), &error),
                }
            }
        }
    }

    fn leave_out(&mut self, path: &str, error: &anyhow::Error) {
        self.left_out += 1;
        log::debug!("{path}: {error:#}");
        if self.left_out == 1 {
            log::warn!(
                "{path} is charged to the cgroup above it, and so are others to come: {error:#}"
            );
        }
    }

    /// A cgroup was removed.
    pub fn removed(&mut self, id: u64) {
        self.unknown.remove(&id);
        if let Some(index) = self.tracked.remove(&id) {
            self.removed.push(index);
        }
    }

    /// Looks at what the tasks of the tracked cgroups have in swap, where that is charged. Pages may go and
    /// come between two looks; memory+swap is right again with the next one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn look_at_swap(&self) -> Result<()> {
        if self.engine.info().memsw == 0 || !host::has_swap()? {
            return Ok(());
        }
        for (&id, &index) in &self.tracked {
            let ById::Found(cgroup) = self.mount.cgroup_of(id) else { continue };
            let nr_pages = pids_of(&cgroup.dir).into_iter().map(swapped).sum();
            if nr_pages != self.engine.counter(index)?.swapped {
                self.engine.control().swapped(index, nr_pages)?;
            }
        }
        Ok(())
    }

    /// Whether [`settle`](Self::settle) has something to do that was put off.
    pub fn is_unsettled(&self) -> bool {
        !self.removed.is_empty() || !self.unknown.is_empty()
    }

    /// Looks again for cgroups that were made and not found, closes the removed ones, all in one
    /// grace period, and frees the counters to which nothing is charged any more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn settle(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.unknown) {
            self.made(id);
        }
        if !self.removed.is_empty() {
            self.engine.close(&self.removed)?;
            self.dying.append(&mut self.removed);
        }
        // A dying cgroup goes after those below it.
        let mut before = usize::MAX;
        while !self.dying.is_empty() && self.dying.len() < before {
            before = self.dying.len();
            let unused = self.engine.unused()?;
            let mut left = Vec::new();
            for &index in &self.dying {
                let usage = self.engine.counter(index)?.memory.usage;
                let is_used = usage > unused.get(&index).copied().unwrap_or_default();
                if is_used || !self.engine.release(index)? {
                    left.push(index);
                }
            }
            self.dying = left;
        }
        Ok(())
    }
}
