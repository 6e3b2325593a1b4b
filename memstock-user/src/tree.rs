//! Owns that what the engine tracks is what the host has: the whole subtree of each cgroup named.
//! Cgroups made later are registered, removed ones closed, and their counters freed when their last
//! page is, or is that of the cgroup above. Decides nothing about charging.
//!
//! It runs behind the host: until a new cgroup is registered, the kernel half charges its nearest
//! registered ancestor, and there the pages stay.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Result;
use memstock_common::{Counter, NO_INDEX, NO_LIMIT, index_of};

use crate::cgroup::{ById, Cgroup, CgroupMount, display};
use crate::enforce::task::{pids_of, swapped};
use crate::engine::Engine;
use crate::host;
use crate::journal::record;
use crate::journal::{Journal, Record};
use crate::pace::Pace;
use crate::reparent::reparent;

/// The tracked and the dying cgroups of an engine.
pub struct Tree<'a> {
    engine: &'a Engine,
    mount: &'a CgroupMount,
    journal: &'a Journal,
    /// Each tracked cgroup, by id.
    tracked: BTreeMap<u64, Known>,
    /// Cgroups that were made and not found: neither tracked nor known to be outside.
    unknown: BTreeSet<u64>,
    /// Removed cgroups whose counters are still to be closed.
    removed: Vec<Known>,
    /// Those whose counters wait for their last page to be freed.
    dying: Vec<Known>,
    /// Of the looks for pages of those.
    pace: Pace,
    /// Cgroups that could not be registered.
    left_out: u64,
}

/// A cgroup that has a counter.
#[derive(Clone, Debug)]
struct Known {
    index: u32,
    id: u64,
    /// Kept for when it is gone; a cgroup cannot be renamed.
    path: Option<PathBuf>,
}

impl Known {
    fn name(&self) -> record::Cgroup {
        record::Cgroup::new(self.id, self.path.as_deref())
    }
}

impl<'a> Tree<'a> {
    /// What the engine tracks now.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn of(engine: &'a Engine, mount: &'a CgroupMount, journal: &'a Journal) -> Result<Self> {
        let open = engine.tracked()?;
        let (mut tracked, mut dying) = (BTreeMap::new(), Vec::new());
        for (index, Counter { id, .. }) in engine.counters() {
            if open.contains(&index) {
                tracked.insert(id, Known { index, id, path: mount.path_of(id) });
            } else {
                // Its id may be another's by now, or nobody's.
                dying.push(Known { index, id, path: None });
            }
        }
        Ok(Self {
            engine,
            mount,
            journal,
            tracked,
            unknown: BTreeSet::new(),
            removed: Vec::new(),
            dying,
            pace: Pace::default(),
            left_out: 0,
        })
    }

    /// Tells of all that are tracked, as of cgroups that were added: for a new engine.
    pub fn announce(&self) {
        let mut known: Vec<_> = self.tracked.values().collect();
        known.sort_by(|a, b| a.path.cmp(&b.path));
        for known in known {
            self.journal.publish(Record::CgroupAdded { cgroup: known.name() });
        }
    }

    /// How many are tracked.
    pub fn nr_tracked(&self) -> usize {
        self.tracked.len()
    }

    /// One was registered by its name. Those below it are found by [`catch_up`](Self::catch_up).
    pub fn added(&mut self, cgroup: &Cgroup, index: u32) {
        let known = Known { index, id: cgroup.id, path: Some(cgroup.path.clone()) };
        self.journal.publish(Record::CgroupAdded { cgroup: known.name() });
        self.tracked.insert(known.id, known);
    }

    /// What the cgroup with this id is called, also when it is dying.
    pub fn name(&self, id: u64) -> record::Cgroup {
        let dying = || self.removed.iter().chain(&self.dying).rfind(|known| known.id == id);
        match self.tracked.get(&id).or_else(dying) {
            Some(known) => known.name(),
            None => record::Cgroup::new(id, self.mount.path_of(id).as_deref()),
        }
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
            if let Some(known) = self.tracked.get(&cgroup.id) {
                parent = Some(known.index);
            } else if parent.is_some() {
                match self.engine.register(cgroup.id, parent, NO_LIMIT, NO_LIMIT) {
                    Ok(index) => {
                        parent = Some(index);
                        self.added(&cgroup, index);
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
        if let Some(known) = self.tracked.remove(&id) {
            self.journal.publish(Record::CgroupDying { cgroup: known.name() });
            self.removed.push(known);
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
        for (&id, &Known { index, .. }) in &self.tracked {
            let ById::Found(cgroup) = self.mount.cgroup_of(id) else { continue };
            let nr_pages = pids_of(&cgroup.dir).into_iter().map(swapped).sum();
            if nr_pages != self.engine.counter(index)?.swapped {
                self.engine.control().swapped(index, nr_pages)?;
            }
        }
        Ok(())
    }

    /// Has pages of removed cgroups be those of the cgroups above. Without one above, they stay until they are freed.
    fn give_up_pages(&mut self) -> Result<()> {
        if self.dying.is_empty() {
            return Ok(());
        }
        let unused = self.engine.unused()?;
        let (mut parents, mut have_pages) = (BTreeMap::new(), false);
        for &Known { index, .. } in &self.dying {
            let counter = self.engine.counter(index)?;
            let parent = index_of(counter.parent as u32);
            if parent != NO_INDEX {
                parents.insert(index, parent);
                have_pages |=
                    counter.memory.usage > unused.get(&index).copied().unwrap_or_default();
            }
        }
        if !have_pages {
            return Ok(());
        }
        reparent(&mut self.pace, self.engine, &parents)
    }

    /// How often a cgroup could not be registered, and is charged to the one above it.
    pub fn left_out(&self) -> u64 {
        self.left_out
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
            let indices: Vec<_> = self.removed.iter().map(|known| known.index).collect();
            self.engine.close(&indices)?;
            self.dying.append(&mut self.removed);
        }
        self.give_up_pages()?;
        // A dying cgroup goes after those below it.
        let mut before = usize::MAX;
        while !self.dying.is_empty() && self.dying.len() < before {
            before = self.dying.len();
            let unused = self.engine.unused()?;
            let mut left = Vec::new();
            for known in &self.dying {
                let usage = self.engine.counter(known.index)?.memory.usage;
                let is_used = usage > unused.get(&known.index).copied().unwrap_or_default();
                if is_used || !self.engine.release(known.index)? {
                    left.push(known.clone());
                } else {
                    self.journal.publish(Record::CgroupRemoved { cgroup: known.name() });
                }
            }
            self.dying = left;
        }
        Ok(())
    }
}
