//! The tracked cgroups at one moment: counters by path. Must not change any.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
#[cfg(test)]
use memstock_common::Counter;

use crate::engine::needed::lineage;
use crate::engine::{Counters, Engine};
use crate::host::cgroup::CgroupMount;
use crate::model::Name;

/// The counters in use, tracked and dying, and the paths of those that have one.
#[derive(Clone, Debug, Default)]
pub struct Tracked {
    counters: Counters,
    open: BTreeSet<u32>,
    by_path: BTreeMap<PathBuf, u32>,
    paths: BTreeMap<u32, PathBuf>,
}

impl Tracked {
    /// Reads the engine and looks the cgroups up.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(engine: &Engine, mount: &CgroupMount) -> Result<Self> {
        let mut found =
            Self { counters: engine.counters(), open: engine.tracked()?, ..Self::default() };
        for (index, counter) in found.counters.iter() {
            // The id of a dying cgroup may have been reused.
            if found.open.contains(&index)
                && let Some(path) = mount.path_of(counter.id)
            {
                found.by_path.insert(path.clone(), index);
                found.paths.insert(index, path);
            }
        }
        Ok(found)
    }

    /// For tests: counter index, parent's index, and the path of those that have one.
    #[cfg(test)]
    pub(crate) fn of(all: &[(u32, u32, Option<&str>)]) -> Self {
        let counter = |&(index, parent, _): &(u32, u32, _)| {
            let parent = memstock_common::owner_of(parent).into();
            let id = u64::from(index) + 1000;
            (index, Counter { id, parent, ..Counter::default() })
        };
        let mut found = Self { counters: all.iter().map(counter).collect(), ..Self::default() };
        for &(index, _, path) in all {
            if let Some(path) = path {
                found.open.insert(index);
                found.by_path.insert(path.into(), index);
                found.paths.insert(index, path.into());
            }
        }
        found
    }

    /// All counters in use.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the counter's cgroup is dying.
    pub fn is_dying(&self, index: u32) -> bool {
        !self.open.contains(&index)
    }

    /// The name of the cgroup of a counter.
    pub fn name(&self, index: u32) -> Name {
        let id = self.counters.get(index).map_or(0, |counter| counter.id);
        Name::new(id, self.path(index).map(Path::to_path_buf))
    }

    /// The path of the cgroup of a counter, while it exists.
    pub fn path(&self, index: u32) -> Option<&Path> {
        self.paths.get(&index).map(PathBuf::as_path)
    }

    /// The cgroups that have a path.
    pub fn paths(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.paths.iter().map(|(&index, path)| (index, path.as_path()))
    }

    /// The counters of the cgroups that have a path, by path.
    pub fn by_path(self) -> BTreeMap<PathBuf, u32> {
        self.by_path
    }

    /// The counter of the cgroup with this path, or of its nearest tracked ancestor.
    pub fn nearest(&self, path: &Path) -> Option<u32> {
        path.ancestors().find_map(|path| self.by_path.get(path)).copied()
    }

    /// The counter itself if its cgroup has a path, else that of its nearest ancestor that has one.
    pub fn living(&self, index: u32) -> Option<u32> {
        self.lineage(index).find(|index| self.paths.contains_key(index))
    }

    /// A counter and its ancestors, upwards.
    pub fn lineage(&self, index: u32) -> impl Iterator<Item = u32> {
        lineage(|at| self.counters.parent(at), index)
    }

    /// The paths of the cgroups that have no tracked ancestor, in alphabetical order.
    pub fn roots(&self) -> Vec<PathBuf> {
        let top = |path: &&PathBuf| path.parent().is_none_or(|above| self.nearest(above).is_none());
        self.by_path.keys().filter(top).cloned().collect()
    }
}
