//! What `memstock run` tracks: the cgroups named, made and found, with their limits.

use std::path::{Path, PathBuf};

use anyhow::Result;
use memstock_common::NO_LIMIT;

use crate::cgroup::{Cgroup, CgroupMount, OwnedCgroup, display};
use crate::cli::{Limit, Run};
use crate::engine::Engine;
use crate::exit::Failure;
use crate::host::page_size;
use crate::size::human;

/// The cgroups of a run, parents before children.
pub struct Targets {
    targets: Vec<Target>,
    /// Where COMMAND starts.
    pub home: Cgroup,
    /// Made for this run, removed with it.
    pub owned: Option<OwnedCgroup>,
}

struct Target {
    cgroup: Cgroup,
    memory_limit: u64,
    memsw_limit: u64,
}

impl Targets {
    /// Resolves the cgroups of the command line and makes the one to be made.
    ///
    /// # Errors
    /// A cgroup cannot be tracked or made, a limit is for none of them, or there is none.
    pub fn prepare(mount: &CgroupMount, args: &Run) -> Result<Self> {
        let mut cgroups =
            args.cgroups.iter().map(|path| mount.resolve(path)).collect::<Result<Vec<_>>>()?;
        let name = match &args.new {
            Some(name) => Some(name.clone()),
            None if cgroups.is_empty() && !args.command.is_empty() => {
                Some(PathBuf::from(format!("memstock-{}", std::process::id())))
            }
            None => None,
        };
        let owned = name.map(|name| mount.create(&name)).transpose()?;
        if let Some(owned) = &owned {
            cgroups.insert(0, owned.cgroup().clone());
        }
        let Some(home) = cgroups.first().cloned() else {
            return Err(Failure::Usage
                .error("nothing to track: give --cgroup PATH, --new NAME or -- COMMAND"));
        };
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
            in_order(&cgroup.path, *memory_limit, *memsw_limit)?;
        }
        Ok(Self { targets, home, owned })
    }

    /// Their paths, the one where COMMAND starts first.
    pub fn paths(&self) -> Vec<PathBuf> {
        let others = self.targets.iter().filter(|target| target.cgroup.id != self.home.id);
        let others = others.map(|target| target.cgroup.path.clone());
        std::iter::once(self.home.path.clone()).chain(others).collect()
    }

    /// Registers every cgroup with its nearest tracked ancestor as parent.
    ///
    /// # Errors
    /// The engine refuses one.
    pub fn register(&self, engine: &mut Engine) -> Result<()> {
        let mut done: Vec<(&Path, u32)> = Vec::new();
        for Target { cgroup, memory_limit, memsw_limit } in &self.targets {
            let parent = done
                .iter()
                .filter(|(path, _)| cgroup.path.starts_with(path))
                .max_by_key(|(path, _)| path.components().count())
                .map(|&(_, index)| index);
            let index = engine.register(cgroup.id, parent, *memory_limit, *memsw_limit)?;
            done.push((&cgroup.path, index));
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

/// The limit of each cgroup, in pages: its own, else the one for all, else none.
fn resolve_limits(mount: &CgroupMount, cgroups: &[Cgroup], limits: &[Limit]) -> Result<Vec<u64>> {
    let mut resolved = vec![None; cgroups.len()];
    let mut for_all = NO_LIMIT;
    for limit in limits {
        let nr_pages = limit.nr_pages.unwrap_or(NO_LIMIT);
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
                resolved[n] = Some(nr_pages);
            }
        }
    }
    Ok(resolved.into_iter().map(|limit| limit.unwrap_or(for_all)).collect())
}
