//! The paths of tracked cgroups, kept from one sample to the next. The kernel renames no cgroup of v2, so a path stays
//! right until the cgroup is removed: a directory is read again only if a tracked cgroup in it is not known yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use memstock_common::{Counter, NO_INDEX, index_of};

use crate::host::cgroup::CgroupMount;

/// The cgroup v2 id and the path of the cgroup of each counter, by its index; none where no path was found.
#[derive(Debug, Default)]
pub struct Paths(Vec<Option<(u64, Arc<Path>)>>);

impl Paths {
    /// The path of the cgroup with this counter and this id, if it was tracked and found at the last
    /// [`update`](Self::update).
    pub(super) fn get(&self, index: u32, id: u64) -> Option<&Arc<Path>> {
        let (of, path) = self.0.get(index as usize)?.as_ref()?;
        (*of == id).then_some(path)
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
        let is_settled = |(&index, counter): (&u32, &Counter<u64>)| {
            self.get(index, counter.id).is_some() == is_open(index)
        };
        if counters.iter().all(is_settled) {
            return;
        }
        let open = || counters.iter().filter(|(index, _)| is_open(**index));
        let mut below = BTreeMap::<u32, Vec<(u32, u64)>>::new();
        for (&index, counter) in open() {
            let above = index_of(counter.parent as u32);
            let above = if is_open(above) { above } else { NO_INDEX };
            below.entry(above).or_default().push((index, counter.id));
        }
        let before = std::mem::take(self);
        let last = counters.keys().last().map_or(0, |&last| last as usize + 1);
        self.0.resize(last, None);
        let mut due = vec![(NO_INDEX, None::<Arc<Path>>)];
        while let Some((above, path)) = due.pop() {
            let Some(children) = below.remove(&above) else { continue };
            let are_known = children.iter().all(|&(index, id)| before.get(index, id).is_some());
            let mut listed = HashMap::new();
            if let Some(path) = path.filter(|_| !are_known) {
                let mut child = [path.as_os_str().as_bytes(), b"/"].concat();
                let start = child.len();
                let list = |id, name: &OsStr| {
                    child.truncate(start);
                    child.extend_from_slice(name.as_bytes());
                    listed.insert(id, Arc::<Path>::from(Path::new(OsStr::from_bytes(&child))));
                };
                // Those that were read before an error are right, too.
                let _ = mount.each_below(&path, list);
            }
            for (index, id) in children {
                let known = if are_known { before.get(index, id).cloned() } else { None };
                let found = known.or_else(|| listed.remove(&id));
                let path = found.or_else(|| mount.path_of(id).map(Into::into));
                if let Some(path) = &path {
                    self.0[index as usize] = Some((id, Arc::clone(path)));
                }
                due.push((index, path));
            }
        }
    }
}
