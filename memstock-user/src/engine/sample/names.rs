//! The paths of tracked cgroups, kept from one sample to the next. The kernel renames no cgroup of v2, so a path stays
//! right until the cgroup is removed: a directory is read again only if a tracked cgroup in it is not known yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use memstock_common::{Counter, NO_INDEX};

use crate::engine::Counters;
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
    ///
    /// `ask` tells which counters are those of tracked cgroups. That takes half as long as a listing, and a cgroup that
    /// exists is tracked, since only removed ones are closed. So it is asked only if paths were kept, or a cgroup was
    /// not found. Returns its answer; without one, all are tracked.
    ///
    /// # Errors
    /// Those of `ask`.
    pub(super) fn update(
        &mut self,
        counters: &Counters,
        mount: &CgroupMount,
        ask: impl Fn() -> Result<BTreeSet<u32>>,
    ) -> Result<Option<BTreeSet<u32>>> {
        let mut tracked = if self.0.is_empty() { None } else { Some(ask()?) };
        if let Some(open) = &tracked {
            let is_settled = |(index, counter): (u32, &Counter<u64>)| {
                self.get(index, counter.id).is_some() == open.contains(&index)
            };
            if counters.iter().all(is_settled) {
                return Ok(tracked);
            }
        }
        let mut below = BTreeMap::<u32, Vec<(u64, u32)>>::new();
        for (index, counter) in counters.iter().filter(|(index, _)| is_open(&tracked, *index)) {
            let above = counters.parent(index).filter(|&above| counters.get(above).is_some());
            let above = above.filter(|&above| is_open(&tracked, above)).unwrap_or(NO_INDEX);
            below.entry(above).or_default().push((counter.id, index));
        }
        let before = std::mem::take(self);
        let end = counters.indices().last().map_or(0, |last| last as usize + 1);
        self.0.resize(end, None);
        let mut due = vec![(NO_INDEX, None::<Arc<Path>>)];
        while let Some((above, path)) = due.pop() {
            let Some(mut children) = below.remove(&above) else { continue };
            children.sort_unstable();
            let are_known = children.iter().all(|&(id, index)| before.get(index, id).is_some());
            if let Some(path) = path.filter(|_| !are_known) {
                let mut child = [path.as_os_str().as_bytes(), b"/"].concat();
                let start = child.len();
                let list = |id, name: &OsStr| {
                    let Ok(at) = children.binary_search_by_key(&id, |&(id, _)| id) else { return };
                    child.truncate(start);
                    child.extend_from_slice(name.as_bytes());
                    let path = Path::new(OsStr::from_bytes(&child)).into();
                    self.0[children[at].1 as usize] = Some((id, path));
                };
                // Those that were read before an error are right, too.
                let _ = mount.each_below(&path, list);
            }
            for (id, index) in children {
                let found = &mut self.0[index as usize];
                if are_known {
                    *found = before.get(index, id).map(|path| (id, Arc::clone(path)));
                }
                if found.is_none() && is_open(&tracked, index) {
                    *found = mount.path_of(id).map(|path| (id, path.into()));
                    if found.is_none() && tracked.is_none() {
                        tracked = Some(ask()?);
                    }
                }
                if below.contains_key(&index) {
                    due.push((index, found.as_ref().map(|(_, path)| Arc::clone(path))));
                }
            }
        }
        Ok(tracked)
    }
}

/// Whether a counter is that of a tracked cgroup, as far as is known.
fn is_open(tracked: &Option<BTreeSet<u32>>, index: u32) -> bool {
    tracked.as_ref().is_none_or(|all| all.contains(&index))
}
