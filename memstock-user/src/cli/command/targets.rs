//! What `memstock run` tracks: the cgroups named, made and found, with their limits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use memstock_common::NO_LIMIT;
use memstock_common::control::Refusal;

use crate::cli::{Limit, Run};
use crate::enforce::notes::{NO_LIMITS, Notes};
use crate::enforce::setting::{Limits, Request};
use crate::engine::Engine;
use crate::engine::kernel_cgroup::Tracked;
use crate::exit::Failure;
use crate::host::cgroup::{Cgroup, CgroupMount, OwnedCgroup, display};

/// The cgroups of a run, parents before children.
pub struct Targets {
    targets: Vec<Target>,
    /// Paths to be tracked once a cgroup is made there.
    awaited: Awaited,
    /// Where COMMAND starts; none if the run only watches an adopted engine.
    home: Option<Cgroup>,
    /// Tracked because of `--new` or COMMAND, whoever made it.
    own: Option<Cgroup>,
    /// Made for this run, and removed with it.
    pub owned: Option<OwnedCgroup>,
}

/// Paths without a cgroup yet, and the limits that one will have.
pub type Awaited = Vec<(PathBuf, Limits)>;

/// A cgroup to be tracked. Limits are in pages; none if not given.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// Limit of memory.
    pub memory_limit: Option<u64>,
    /// Limit of memory and swap together.
    pub memsw_limit: Option<u64>,
}

impl Target {
    /// Its limits when it is new.
    pub fn limits(&self) -> Limits {
        let [memory, memsw] =
            [self.memory_limit, self.memsw_limit].map(|limit| limit.unwrap_or(NO_LIMIT));
        Limits { memory, memsw }
    }
}

impl Targets {
    /// Resolves the cgroups of the command line, and calls `make` for the one of `--new` or COMMAND unless it is among
    /// `inherited`: the ids of cgroups that an earlier daemon of an adopted engine made; none without such an engine.
    ///
    /// # Errors
    /// A cgroup cannot be tracked or made, a limit is for none of them, or there is nothing to track.
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
        let (mut own, mut owned) = (None, None);
        if let Some(name) = name {
            let there = mount.resolve(&name);
            let inherits = |there: &Cgroup| inherited.is_some_and(|ids| ids.contains(&there.id));
            let named = match there.ok().filter(inherits) {
                Some(there) => there,
                None => owned.insert(make(&name)?).cgroup().clone(),
            };
            cgroups.insert(0, own.insert(named).clone());
        }
        let home = cgroups.first().cloned();
        let is_awaiting = !args.awaited.is_empty() || args.file.has_names();
        if home.is_none() && inherited.is_none() && !is_awaiting {
            return Err(Failure::Usage.error(
                "nothing to track: give --cgroup PATH, --config FILE, --new NAME or -- COMMAND",
            ));
        }
        let targets = with_limits(mount, cgroups, args)?;
        Ok(Self { targets, awaited: awaited(mount, args), home, own, owned })
    }

    /// The cgroups that the command line names now, and the one that was made: for a configuration that was read again.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn again(&self, mount: &CgroupMount, args: &Run) -> Result<Vec<Target>> {
        let named = args.cgroups.iter().map(|path| mount.resolve(path));
        let own = self.own.iter().cloned().map(Ok);
        with_limits(mount, own.chain(named).collect::<Result<_>>()?, args)
    }

    /// The targets of the start.
    pub fn all(&self) -> &[Target] {
        &self.targets
    }

    /// What was awaited at the start.
    pub fn awaited(&self) -> &Awaited {
        &self.awaited
    }

    /// Where COMMAND starts.
    ///
    /// # Errors
    /// There is no such place, and no COMMAND either.
    pub fn home(&self) -> Result<&Cgroup> {
        self.home.as_ref().context("no cgroup for COMMAND")
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

    /// Registers every cgroup with its nearest tracked ancestor as parent; sets the given limits of those that are
    /// tracked already.
    ///
    /// # Errors
    /// The engine refuses one, or it is above one that is tracked already.
    pub fn register(&self, engine: &Engine, mount: &CgroupMount) -> Result<()> {
        let mut done = Tracked::read(engine, mount)?.by_path();
        for target in &self.targets {
            let Target { cgroup, memory_limit, memsw_limit } = target;
            if let Some(index) = engine.index_of(cgroup.id)? {
                let request = Request { memory: *memory_limit, memsw: *memsw_limit };
                if let Err(why) = engine.control().limits(request.asked(index, false))? {
                    let what = match why {
                        Refusal::Order => "would have memory and swap limited to less than memory",
                        _ => "uses more than that limit",
                    };
                    return Err(Failure::Other.error(format!(
                        "{} {what}: leave the limit out to adopt the engine, then use \"memstock limit\"",
                        display(&cgroup.path)
                    )));
                }
                let limits = Limits::of(&engine.counter(index)?);
                Notes::of(engine.pins()).note(&cgroup.path, limits)?;
                continue;
            }
            let index = register(engine, &done, target)?;
            done.insert(cgroup.path.clone(), index);
        }
        note(engine, &self.awaited)
    }
}

/// Registers a cgroup with its nearest ancestor among the `tracked` ones as parent; returns its counter.
///
/// # Errors
/// The engine refuses it, or it is above one that is tracked already.
pub fn register(engine: &Engine, tracked: &BTreeMap<PathBuf, u32>, target: &Target) -> Result<u32> {
    let path = &target.cgroup.path;
    // Pages of those below were not charged to it, and it cannot be inserted above them.
    if let Some(below) = tracked.keys().find(|below| below.starts_with(path)) {
        return Err(Failure::Running.error(format!(
            "the engine that is charging tracks {}, which is below {}: end it with \
             \"memstock stop\" to track both",
            display(below),
            display(path)
        )));
    }
    let parent = path.ancestors().find_map(|above| tracked.get(above)).copied();
    Notes::of(engine.pins()).note(path, target.limits())?;
    let Limits { memory, memsw } = target.limits();
    engine.register(target.cgroup.id, parent, memory, memsw)
}

/// Notes the paths, so that a cgroup is tracked once it is made there.
///
/// # Errors
/// They cannot be noted.
pub fn note(engine: &Engine, awaited: &Awaited) -> Result<()> {
    for (path, limits) in awaited {
        log::warn!(
            "no cgroup {} yet: it is tracked, with its limits, when it is made",
            display(path)
        );
        Notes::of(engine.pins()).note(path, *limits)?;
    }
    Ok(())
}

/// The awaited paths, with the limits of the command line.
pub fn awaited(mount: &CgroupMount, args: &Run) -> Awaited {
    let limit = |limits: &[Limit], of: &Path| {
        let is_of = |path: &PathBuf| mount.named(path).is_ok_and(|path| path == of);
        let own = limits.iter().rfind(|limit| limit.cgroup.as_ref().is_some_and(is_of));
        let for_all = || limits.iter().rfind(|limit| limit.cgroup.is_none());
        own.or_else(for_all).and_then(|limit| limit.nr_pages).unwrap_or(NO_LIMIT)
    };
    // A cgroup that was made since is found with all others that are named.
    let paths = args.awaited.iter().filter_map(|path| mount.named(path).ok());
    let limits = |path: PathBuf| {
        let memory = limit(&args.limits, &path);
        let memsw = limit(&args.memsw_limits, &path);
        (path, Limits { memory, memsw })
    };
    paths.map(limits).collect()
}

/// The cgroups, parents before children, with the limits of the command line.
fn with_limits(mount: &CgroupMount, mut cgroups: Vec<Cgroup>, args: &Run) -> Result<Vec<Target>> {
    cgroups.sort_by(|a, b| a.path.cmp(&b.path));
    cgroups.dedup_by_key(|cgroup| cgroup.id);
    let resolve = |flag, limits| resolve_limits(mount, &cgroups, flag, limits, &args.awaited);
    let memory = resolve("--limit", &args.limits)?;
    let memsw = resolve("--memsw-limit", &args.memsw_limits)?;
    let targets: Vec<_> = cgroups
        .into_iter()
        .zip(memory.into_iter().zip(memsw))
        .map(|(cgroup, (memory_limit, memsw_limit))| Target { cgroup, memory_limit, memsw_limit })
        .collect();
    for target in &targets {
        target.limits().in_order(&target.cgroup.path)?;
        if target.limits() != NO_LIMITS {
            target.cgroup.can_be_limited()?;
        }
    }
    Ok(targets)
}

/// The limit of each cgroup, in pages: its own, else the one for all, if there is one.
fn resolve_limits(
    mount: &CgroupMount,
    cgroups: &[Cgroup],
    flag: &str,
    limits: &[Limit],
    awaited: &[PathBuf],
) -> Result<Vec<Option<u64>>> {
    let mut resolved = vec![None; cgroups.len()];
    let mut for_all = None;
    for limit in limits {
        let nr_pages = Some(limit.nr_pages.unwrap_or(NO_LIMIT));
        match &limit.cgroup {
            None => for_all = nr_pages,
            Some(path) if awaited.contains(path) => {}
            Some(path) => {
                let id = mount.resolve(path)?.id;
                let Some(n) = cgroups.iter().position(|cgroup| cgroup.id == id) else {
                    return Err(Failure::Cgroup.error(format!(
                        "{flag} for {}, which is not tracked: add --cgroup",
                        display(path)
                    )));
                };
                resolved[n] = nr_pages;
            }
        }
    }
    Ok(resolved.into_iter().map(|limit| limit.or(for_all)).collect())
}
