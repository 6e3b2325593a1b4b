//! Keeps the tracked cgroups in step with the cgroup tree: the whole subtree of each named cgroup. New cgroups are
//! registered; removed ones are closed, and their counters released when their last page has been freed or moved to the
//! parent. Decides nothing about charging.
//!
//! It lags behind the host: until a new cgroup is registered, the kernel half charges its nearest registered ancestor,
//! and those pages stay there. A cgroup re-created at a named path is tracked again, with the limits given to that
//! path; what its tasks hold by then is noted for adoption if no ancestor is tracked. `dying` handles removed cgroups.

mod again;
mod dying;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use memstock_common::Counter;

use crate::enforce::notes::{NO_LIMITS, Notes};
use crate::enforce::setting::Limits;
use crate::engine::Engine;
use crate::exit::ExitError;
use crate::host::cgroup::{ById, Cgroup, CgroupMount};
use crate::journal::record;
use crate::journal::{Journal, Record};

/// How long a new cgroup may take to become visible after its event.
const COMES: Duration = Duration::from_secs(2);

/// The tracked and the dying cgroups of an engine.
pub struct Tree<'a> {
    engine: &'a Engine,
    mount: &'a CgroupMount,
    journal: &'a Journal,
    notes: Notes,
    /// Each tracked cgroup, by id.
    tracked: BTreeMap<u64, Known>,
    /// New cgroups that were not found or could not be registered, each with the time of the first attempt.
    unknown: BTreeMap<u64, Instant>,
    /// Tracked cgroups that may be gone.
    going: BTreeSet<u64>,
    /// Removed cgroups whose counters are still to be closed.
    removed: Vec<Known>,
    /// Removed cgroups whose counters wait for their last page to be freed.
    dying: Vec<Known>,
    /// Tracked cgroups whose children are still to be looked for.
    unseen: VecDeque<u64>,
    /// How often a cgroup could not be registered, and which of those are waiting for room.
    left_out: u64,
    waiting: BTreeSet<u64>,
    /// Whether to adopt what the tasks of named cgroups hold before these are tracked.
    pub adopts: bool,
    /// Whether such cgroups were noted since it was last asked.
    has_unadopted: bool,
}

/// A cgroup that has a counter.
#[derive(Clone, Debug)]
struct Known {
    index: u32,
    id: u64,
    /// Kept so that it is known after the removal; a cgroup cannot be renamed.
    path: Option<PathBuf>,
}

impl Known {
    fn name(&self) -> record::Cgroup {
        record::Cgroup::new(self.id, self.path.as_deref())
    }
}

impl<'a> Tree<'a> {
    /// Reads the present state of the engine.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn of(engine: &'a Engine, mount: &'a CgroupMount, journal: &'a Journal) -> Result<Self> {
        let open = engine.tracked()?;
        let (mut tracked, mut dying) = (BTreeMap::new(), Vec::new());
        for (index, &Counter { id, .. }) in engine.counters().iter() {
            if open.contains(&index) {
                tracked.insert(id, Known { index, id, path: mount.path_of(id) });
            } else {
                // The host may have reused its id by now.
                dying.push(Known { index, id, path: None });
            }
        }
        Ok(Self {
            engine,
            mount,
            journal,
            notes: Notes::of(engine.pins()),
            tracked,
            unknown: BTreeMap::new(),
            going: BTreeSet::new(),
            removed: Vec::new(),
            dying,
            unseen: VecDeque::new(),
            left_out: 0,
            waiting: BTreeSet::new(),
            adopts: true,
            has_unadopted: false,
        })
    }

    /// Publishes all tracked cgroups as added, for a new engine.
    pub fn announce(&self) {
        let mut known: Vec<_> = self.tracked.values().collect();
        known.sort_by(|a, b| a.path.cmp(&b.path));
        for known in known {
            self.journal.publish(Record::CgroupAdded { cgroup: known.name() });
        }
    }

    /// The number of tracked cgroups.
    pub fn nr_tracked(&self) -> usize {
        self.tracked.len()
    }

    /// The ids of the tracked cgroups.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.tracked.keys().copied()
    }

    /// The counter of a tracked cgroup.
    pub fn index_of(&self, id: u64) -> Option<u32> {
        self.tracked.get(&id).map(|known| known.index)
    }

    /// Notes that a cgroup was registered by name. Its children are still to be looked for.
    pub fn added(&mut self, cgroup: &Cgroup, index: u32) {
        let known = Known { index, id: cgroup.id, path: Some(cgroup.path.clone()) };
        self.journal.publish(Record::CgroupAdded { cgroup: known.name() });
        self.unseen.push_back(known.id);
        self.waiting.remove(&known.id);
        self.tracked.insert(known.id, known);
    }

    /// The name of the cgroup with this id, also of a dying one.
    pub fn name(&self, id: u64) -> record::Cgroup {
        let dying = || self.removed.iter().chain(&self.dying).rfind(|known| known.id == id);
        match self.tracked.get(&id).or_else(dying) {
            Some(known) => known.name(),
            None => record::Cgroup::new(id, self.mount.path_of(id).as_deref()),
        }
    }

    /// Queues everything that may have been missed; [`look_below`](Self::look_below) works through it.
    ///
    /// # Errors
    /// The notes of limits cannot be read.
    pub fn catch_up(&mut self) -> Result<()> {
        // Their removal may have been missed; those that exist are found again below.
        self.unknown.clear();
        self.unseen = self.tracked.keys().copied().collect();
        for path in self.notes.all()? {
            if let Ok(cgroup) = self.mount.resolve(&path)
                && !self.tracked.contains_key(&cgroup.id)
            {
                self.unknown.insert(cgroup.id, Instant::now());
            }
        }
        Ok(())
    }

    /// Whether there is something to [`look_below`](Self::look_below).
    pub fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Registers the children of the next tracked cgroup, or notes that it is gone. Reads one directory.
    ///
    /// # Errors
    /// The kernel refuses for now; [`look_again`](Self::look_again) tries again.
    pub fn look_below(&mut self) -> Result<()> {
        let Some(id) = self.unseen.pop_front() else { return Ok(()) };
        match self.mount.cgroup_of(id) {
            ById::Gone | ById::Unknown => drop(self.removed(id)),
            ById::Found(cgroup) => {
                let Some(parent) = self.index_of(id) else { return Ok(()) };
                let children =
                    self.mount.children(&cgroup).inspect_err(|_| self.unseen.push_back(id));
                let new =
                    children?.into_iter().filter(|below| !self.tracked.contains_key(&below.id));
                let new: Vec<_> = new.collect();
                let mut outcome = Ok(());
                for below in &new {
                    outcome = outcome.and(self.register(below, Some(parent)).map(drop));
                }
                return outcome;
            }
        }
        Ok(())
    }

    /// Registers a created cgroup if it is in the subtree of a tracked one, or at a named path.
    ///
    /// # Errors
    /// The kernel refuses for now; [`look_again`](Self::look_again) tries again.
    pub fn made(&mut self, id: u64) -> Result<()> {
        let since = *self.unknown.entry(id).or_insert_with(Instant::now);
        let lineage = match self.mount.lineage(id) {
            ById::Found(lineage) => lineage,
            // The event comes a moment before the cgroup can be found (`TRACE_CGROUP_PATH(mkdir, …)` before
            // `kernfs_activate` in `cgroup_mkdir`).
            ById::Gone if since.elapsed() > COMES => {
                self.unknown.remove(&id);
                return Ok(());
            }
            ById::Gone | ById::Unknown => return Ok(()),
        };
        let mut parent = None;
        // From the top: of two new cgroups, the lower may be reported first.
        for cgroup in lineage {
            match self.tracked.get(&cgroup.id) {
                Some(known) => parent = Some(known.index),
                None => parent = self.register(&cgroup, parent)?.or(parent),
            }
        }
        self.unknown.remove(&id);
        Ok(())
    }

    /// Registers a cgroup that has a tracked ancestor or was named; returns its counter index if it has one now.
    fn register(&mut self, cgroup: &Cgroup, parent: Option<u32>) -> Result<Option<u32>> {
        let limits = self.notes.limits(&cgroup.path).inspect_err(|_| self.try_again(cgroup.id))?;
        if parent.is_none() && limits.is_none() {
            return Ok(None);
        }
        if parent.is_none() && self.has_below(cgroup) {
            // Pages of the cgroups below were not charged to it, and it cannot be inserted above them.
            return Ok(None);
        }
        let Limits { memory, memsw } = limits.unwrap_or(NO_LIMITS);
        // Noted before it is tracked, since the daemon may die in between. Below a tracked ancestor there is nothing
        // to adopt: that one was charged.
        let adopts = self.adopts && parent.is_none();
        if adopts {
            let noted = self.engine.pins().note_unadopted([cgroup.id]);
            noted.inspect_err(|_| self.try_again(cgroup.id))?;
        }
        match self.engine.register(cgroup.id, parent, memory, memsw) {
            Ok(index) => {
                self.added(cgroup, index);
                if adopts {
                    self.adopt_if_needed(cgroup)?;
                }
                Ok(Some(index))
            }
            Err(error) if error.downcast_ref::<ExitError>().is_some() => {
                self.leave_out(cgroup, &error);
                if adopts {
                    self.engine.pins().adopted(&[cgroup.id].into())?;
                }
                Ok(None)
            }
            Err(error) => {
                self.try_again(cgroup.id);
                Err(error)
            }
        }
    }

    /// If it is empty once it is tracked, there is nothing that could be adopted.
    fn adopt_if_needed(&mut self, cgroup: &Cgroup) -> Result<()> {
        if cgroup.is_empty() {
            return self.engine.pins().adopted(&[cgroup.id].into());
        }
        self.has_unadopted = true;
        Ok(())
    }

    /// Whether cgroups were noted for adoption since this was last called.
    pub fn take_unadopted(&mut self) -> bool {
        std::mem::take(&mut self.has_unadopted)
    }

    /// Whether a tracked cgroup is below it; one at the same path was removed.
    fn has_below(&self, cgroup: &Cgroup) -> bool {
        let is_below = |known: &Known| {
            let path = known.path.as_deref().filter(|path| path.starts_with(&cgroup.path));
            path.is_some_and(|path| self.mount.is_at(known.id, path))
        };
        self.tracked.values().any(is_below)
    }

    /// Handles a report that a cgroup was removed, which is believed only if the host no longer knows the id. Returns
    /// whether a tracked cgroup is gone.
    pub fn removed(&mut self, id: u64) -> bool {
        let is_gone = match self.mount.cgroup_of(id) {
            ById::Gone => true,
            ById::Found(_) => false,
            ById::Unknown => {
                self.going.insert(id);
                return false;
            }
        };
        self.going.remove(&id);
        if !is_gone {
            return false;
        }
        self.unknown.remove(&id);
        self.waiting.remove(&id);
        let Some(known) = self.tracked.remove(&id) else { return false };
        self.journal.publish(Record::CgroupDying { cgroup: known.name() });
        self.removed.push(known);
        true
    }
}
