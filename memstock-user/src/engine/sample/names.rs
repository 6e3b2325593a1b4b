//! The paths of tracked cgroups, kept from one sample to the next. The kernel renames no cgroup of v2, so a path stays
//! right until the cgroup is removed: a directory is read again only if a tracked cgroup in it is not known yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use memstock_common::{Counter, NO_INDEX, index_of};

use crate::host::cgroup::CgroupMount;

/// Paths by cgroup v2 id.
#[derive(Debug, Default)]
pub struct Paths(HashMap<u64, Arc<Path>>);

impl Paths {
    /// The path of the cgroup with this id, if it was found at the last [`update`](Self::update).
    pub(super) fn get(&self, id: u64) -> Option<Arc<Path>> {
        self.0.get(&id).cloned()
    }

    /// Finds the paths of the tracked cgroups that have none yet, from the top down: one listing gives the names of all
    /// children of a cgroup. Cgroups that are not direct children of a tracked one are looked up by id, which takes
    /// about ten times as long.
    pub(super) fn update(
        &mut self,
        counters: &BTreeMap<u32, Counter<u64>>,
        tracked: &BTreeSet<u32>,
        mount: &CgroupMount,
    ) {
        let is_open = |index: u32| tracked.contains(&index);
        let open = || counters.iter().filter(|(index, _)| is_open(**index));
        let known = open().filter(|(_, counter)| self.0.contains_key(&counter.id)).count();
        if known == self.0.len() && known == open().count() {
            return;
        }
        let mut below = BTreeMap::<u32, Vec<(u32, u64)>>::new();
        for (&index, counter) in open() {
            let above = index_of(counter.parent as u32);
            let above = if is_open(above) { above } else { NO_INDEX };
            below.entry(above).or_default().push((index, counter.id));
        }
        let mut before = std::mem::take(&mut self.0);
        let mut due = vec![(NO_INDEX, None::<Arc<Path>>)];
        while let Some((above, path)) = due.pop() {
            let Some(children) = below.remove(&above) else { continue };
            let are_known = children.iter().all(|(_, id)| before.contains_key(id));
            let mut listed = HashMap::new();
            if let Some(path) = path.filter(|_| !are_known) {
                let list = |id, name: &OsStr| drop(listed.insert(id, path.join(name).into()));
                // Those that were read before an error are right, too.
                let _ = mount.each_below(&path, list);
            }
            let found = if are_known { &mut before } else { &mut listed };
            for (index, id) in children {
                let path = found.remove(&id).or_else(|| mount.path_of(id).map(Into::into));
                if let Some(path) = &path {
                    self.0.insert(id, Arc::clone(path));
                }
                due.push((index, path));
            }
        }
    }
}
