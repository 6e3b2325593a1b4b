//! What `memstock run` tracks: the cgroups named, made and found, with their limits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use memstock_common::{NO_LIMIT, Resource};

use crate::cgroup::{Cgroup, CgroupMount, OwnedCgroup, display};
use crate::cli::{Limit, Run};
use crate::engine::Engine;
use crate::exit::Failure;
use crate::host::page_size;
use crate::kernel_cgroup::Tracked;
use crate::size::human;

/// The cgroups of a run, parents before children.
pub struct Targets {
    targets: Vec<Target>,
    /// Where COMMAND starts; none if only what an adopted engine tracks is watched.
    home: Option<Cgroup>,
    /// Made for this run, removed with it.
    pub owned: Option<OwnedCgroup>,
}

struct Target {
    cgroup: Cgroup,
    /// In pages, if one was given.
    memory_limit: Option<u64>,
    memsw_limit: Option<u64>,
}

impl Targets {
    /// Resolves the cgroups of the command line and has the one made that is to be made, unless it is among
    /// `inherited`: those, by id, that a daemon made whose engine is adopted, none if there is no such engine.
    ///
    /// # Errors
    /// A cgroup cannot be tracked or made, a limit is for none of them, or there is none.
    pub fn prepare(
        mount: &CgroupMount,
        args: &Run,
        inherited: Option<&[u64]>,
        make: impl FnOnce(&Path) -> Result<OwnedCgroup>,
    ) -> Result<Self> {
        let mut cgroups =
            args.cgroups.iter().map(|path| mount.resolve(path)).collect::<Result<Vec<_>>>()?;
        let name = match &args.new {
            Some(name) => Some(name.clone()),
            None if cgroups.is_empty() && !args.command.is_empty() => {
                Some(PathBuf::from(format!("memstock-{}", std::process::id())))
            }
            None => None,
        };
        let mut owned = None;
        if let Some(name) = name {
            let there = mount.resolve(&name);
            let inherits = |there: &Cgroup| inherited.is_some_and(|ids| ids.contains(&there.id));
            cgroups.insert(
                0,
                match there.ok().filter(inherits) {
                    Some(there) => there,
                    None => owned.insert(make(&name)?).cgroup().clone(),
                },
            );
        }
        let home = cgroups.first().cloned();
        if home.is_none() && inherited.is_none() {
            return Err(Failure::Usage
                .error("nothing to track: give --cgroup PATH, --new NAME or -- COMMAND"));
        }
        cgroups.sort_by(|a, b| a.path.cmp(&b.path));
        cgroups.dedup_by_key(|cgroup| cgroup.id);
        let memory = resolve_limits(mount, &cgroups, &args.limits)?;
        let memsw = resolve_limits(mount, &cgroups, &args.memsw_limits)?;
        let targets: Vec<_> = cgroups
            .into_iter()
            .zip(memory.into_iter().zip(memsw))
            .map(|(cgroup, (memory_limit, memsw_limit))| Target {
                cgroup,
                memory_limit,
                memsw_limit,
            })
            .collect();
        for Target { cgroup, memory_limit, memsw_limit } in &targets {
            let [memory, memsw] =
                [memory_limit, memsw_limit].map(|limit| limit.unwrap_or(NO_LIMIT));
            in_order(&cgroup.path, memory, memsw)?;
        }
        Ok(Self { targets, home, owned })
    }

    /// Where COMMAND starts.
    ///
    /// # Errors
    /// There is no such place, and no COMMAND either.
    pub fn home(&self) -> Result<&Cgroup> {
        self.home.as_ref().context("no cgroup for COMMAND")
    }

    /// Their paths, the one where COMMAND starts first.
    pub fn paths(&self) -> Vec<PathBuf> {
        let is_home = |target: &&Target| self.home.as_ref() != Some(&target.cgroup);
        let others = self.targets.iter().filter(is_home).map(|target| target.cgroup.path.clone());
        self.home.iter().map(|home| home.path.clone()).chain(others).collect()
    }

    /// The ids of those that the engine does not track yet.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn untracked(&self, engine: &Engine) -> Result<BTreeSet<u64>> {
        let mut untracked = BTreeSet::new();
        for Target { cgroup, .. } in &self.targets {
            if engine.index_of(cgroup.id)?.is_none() {
                untracked.insert(cgroup.id);
            }
        }
        Ok(untracked)
    }

    /// Registers every cgroup with its nearest tracked ancestor as parent; of those that are tracked
    /// already, sets the limits that were given.
    ///
    /// # Errors
    /// The engine refuses one, or it is above one that is tracked already.
    pub fn register(&self, engine: &Engine, mount: &CgroupMount) -> Result<()> {
        let tracked = Tracked::read(engine, mount)?;
        let mut done: Vec<(PathBuf, u32)> =
            tracked.paths().map(|(index, path)| (path.to_path_buf(), index)).collect();
        for Target { cgroup, memory_limit, memsw_limit } in &self.targets {
            if let Some(index) = engine.index_of(cgroup.id)? {
                let limits = [(Resource::Memory, memory_limit), (Resource::Memsw, memsw_limit)];
                for (resource, limit) in limits {
                    if let Some(limit) = limit
                        && !engine.control().limit(index, resource, *limit)?
                    {
                        return Err(Failure::Other.error(format!(
                            "{} uses more than that limit: leave it out to adopt the engine, and \
                             use \"memstock limit\" then",
                            display(&cgroup.path)
                        )));
                    }
                }
                continue;
            }
            // The pages of those below were not charged to it, and it cannot be put in between.
            if let Some((below, _)) = done.iter().find(|(path, _)| path.starts_with(&cgroup.path)) {
                return Err(Failure::Running.error(format!(
                    "the engine that is charging tracks {}, which is below {}: end it with \
                     \"memstock stop\" to track both",
                    display(below),
                    display(&cgroup.path)
                )));
            }
            let parent = done
                .iter()
                .filter(|(path, _)| cgroup.path.starts_with(path))
                .max_by_key(|(path, _)| path.components().count())
                .map(|&(_, index)| index);
            let [memory, memsw] =
                [memory_limit, memsw_limit].map(|limit| limit.unwrap_or(NO_LIMIT));
            let index = engine.register(cgroup.id, parent, memory, memsw)?;
            done.push((cgroup.path.clone(), index));
        }
        Ok(())
    }
}

/// Refuses a limit of memory and swap together that is below that of memory alone, as the kernel does.
///
/// # Errors
/// [`Failure::Usage`].
pub fn in_order(path: &Path, memory: u64, memsw: u64) -> Result<()> {
    // A limit of memory above the other one would never be met; none at all is no limit to be above.
    if memory != NO_LIMIT && memsw < memory {
        let bytes = |nr_pages| human(nr_pages * page_size());
        return Err(Failure::Usage.error(format!(
            "{}: memory and swap together may not be limited to less ({}) than memory alone ({})",
            display(path),
            bytes(memsw),
            bytes(memory)
        )));
    }
    Ok(())
}

/// The limit of each cgroup, in pages: its own, else the one for all, if there is one.
fn resolve_limits(
    mount: &CgroupMount,
    cgroups: &[Cgroup],
    limits: &[Limit],
) -> Result<Vec<Option<u64>>> {
    let mut resolved = vec![None; cgroups.len()];
    let mut for_all = None;
    for limit in limits {
        let nr_pages = Some(limit.nr_pages.unwrap_or(NO_LIMIT));
        match &limit.cgroup {
            None => for_all = nr_pages,
            Some(path) => {
                let id = mount.resolve(path)?.id;
                let Some(n) = cgroups.iter().position(|cgroup| cgroup.id == id) else {
                    return Err(Failure::Cgroup.error(format!(
                        "--limit for {}, which is not tracked: add --cgroup",
                        display(path)
                    )));
                };
                resolved[n] = nr_pages;
            }
        }
    }
    Ok(resolved.into_iter().map(|limit| limit.or(for_all)).collect())
}
