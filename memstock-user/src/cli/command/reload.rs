//! What `memstock run` does at SIGHUP: reads its configuration again and applies what has changed. Owns the order of
//! the changes and how they are reported; `diff` finds them.
//!
//! A file with a mistake changes nothing. Otherwise each change is tried separately: one that is refused (a limit below
//! the usage) is reported, and tried again at the next SIGHUP. Setting limits and adopting pages of new cgroups takes
//! long, so other threads do it, and the reload continues here afterwards. Nothing here ends the daemon.

mod diff;
mod report;
mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use memstock_common::NO_LIMIT;

use self::diff::{Change, diff};
use self::report::Report;
use super::targets::{Awaited, Target, Targets, awaited, note, register};
use super::watch::{Done, Watch, status};
use crate::cli::Run;
use crate::cli::config::{self, Entry, Settings};
use crate::daemon::parts::Part;
use crate::enforce::drains::Drains;
use crate::enforce::notes::Notes;
use crate::enforce::reclaim::Cache;
use crate::enforce::room::{LATER, Room};
use crate::enforce::setting::{self, Limits};
use crate::engine::Engine;
use crate::engine::kernel_cgroup::Tracked;
use crate::exit::{self, ExitErrors, Failure};
use crate::host::cgroup::{Cgroup, CgroupMount, display};
use crate::host::workload::{Resolver, Workload};
use crate::journal::Record;

/// The note on a cgroup that the file no longer names.
const STAYS: &str = "it stays tracked until the engine ends";

/// The configuration of a run, to be compared with the next version of its file.
pub struct Reload<'a> {
    /// The command line without the file.
    flags: &'a Run,
    /// The targets of the start.
    targets: &'a Targets,
    now: Wanted,
    /// The settings of the file.
    file: Settings,
    /// The cgroups that the file names by container, pod or unit, with their names.
    named: Vec<(Cgroup, Workload)>,
    /// Finds those; none while it is at work.
    resolver: Option<Resolver>,
    /// The reload that is under way.
    under_way: Option<UnderWay<'a>>,
    /// Whether there was a SIGHUP meanwhile.
    again: bool,
}

struct Wanted {
    settings: Settings,
    targets: Vec<Target>,
    awaited: Awaited,
    by_name: BTreeSet<PathBuf>,
}

struct UnderWay<'a> {
    report: Report<'a>,
    /// To be tracked once limits are set; none once they are, and it waits for what these hold to be adopted.
    added: Option<Vec<Target>>,
}

/// A change of limits that is wanted.
pub struct Request {
    target: Target,
    from: Limits,
    to: Limits,
}

/// Its result.
pub struct Changed {
    request: Request,
    now: Option<Limits>,
    tried: Result<()>,
}

impl<'a> Reload<'a> {
    /// For a run with these `flags`, and the `args` made from them and its file; none if it has no file.
    pub fn new(flags: &'a Run, args: &Run, engine: &Engine, targets: &'a Targets) -> Option<Self> {
        flags.config.as_ref()?;
        let now = Wanted {
            settings: args.settings.with(engine),
            targets: targets.all().to_vec(),
            awaited: targets.awaited().clone(),
            by_name: args.by_name.clone(),
        };
        let (named, resolver, file) = (Vec::new(), None, args.file.clone());
        Some(Self { flags, targets, now, file, named, resolver, under_way: None, again: false })
    }

    /// Whether its file names cgroups by container, pod or unit.
    pub fn has_names(&self) -> bool {
        self.file.has_names()
    }

    /// What finds those; to be given back to [`named`](Self::named).
    pub fn take_resolver(&mut self) -> Resolver {
        self.resolver.take().unwrap_or_default()
    }

    /// Applies the file to the cgroups that have these names now.
    pub fn named(watch: &mut Watch<'a>, mut resolver: Resolver, found: Vec<(Cgroup, Workload)>) {
        resolver.warnings().iter().for_each(|warning| log::warn!("{warning}"));
        let Some(reload) = &mut watch.reload else { return };
        reload.resolver = Some(resolver);
        let names: Vec<_> = reload.file.cgroups.iter().filter_map(Entry::name).collect();
        let is_named = |workload: &Workload| names.iter().any(|name| name.is(workload));
        let named: Vec<_> = found.into_iter().filter(|(_, workload)| is_named(workload)).collect();
        // If a reload is under way, the next look applies them.
        if named == reload.named || reload.under_way.is_some() {
            return;
        }
        let mut flags = reload.flags.clone();
        // What was named by a flag may be gone by now.
        flags.cgroups.retain(|path| watch.mount.absent(path).is_none());
        let args = config::with_settings(&flags, reload.file.clone(), &named, watch.mount);
        let wanted = reload.wanted(&args, watch.engine, watch.mount);
        let Some(wanted) = watch.state.parts.outcome(Part::Names, wanted) else { return };
        let Some(mut reload) = watch.reload.take() else { return };
        reload.named = named;
        if wanted.targets == reload.now.targets {
            watch.reload = Some(reload);
            return;
        }
        let file = reload.flags.config.as_deref().map(display).unwrap_or_default();
        let requests = reload.apply(wanted, watch, Report::new(watch.journal, file));
        watch.reload = Some(reload);
        Self::set_limits(watch, requests);
    }

    /// Reads the file again and begins to apply it.
    pub fn begin(watch: &mut Watch<'a>) {
        // Taken out of `watch` while it works on `watch`.
        let Some(mut reload) = watch.reload.take() else { return };
        watch.manager.reloading();
        if reload.under_way.is_some() {
            reload.again = true;
            watch.reload = Some(reload);
            return;
        }
        let file = reload.flags.config.as_deref().map(display).unwrap_or_default();
        match reload.read(watch.engine, watch.mount) {
            Ok(request) => {
                let requests = reload.apply(request, watch, Report::new(watch.journal, file));
                watch.reload = Some(reload);
                Self::set_limits(watch, requests);
            }
            Err(error) => {
                exit::report(&error);
                let mistakes =
                    error.downcast_ref::<ExitErrors>().map_or(1, |errors| errors.lines.len());
                watch.journal.publish(Record::ConfigRefused { file, mistakes: mistakes as u64 });
                watch.reload = Some(reload);
                watch.manager.ready(&status(&watch.tree));
            }
        }
    }

    fn read(&mut self, engine: &Engine, mount: &CgroupMount) -> Result<Wanted> {
        let Some(file) = &self.flags.config else { return self.wanted(self.flags, engine, mount) };
        // Uses the names of the last look: the loop must not wait for a new one.
        let settings = config::load(file, mount, self.flags)?;
        let args = config::with_settings(self.flags, settings, &self.named, mount);
        let wanted = self.wanted(&args, engine, mount)?;
        self.file = args.file;
        Ok(wanted)
    }

    fn wanted(&self, args: &Run, engine: &Engine, mount: &CgroupMount) -> Result<Wanted> {
        let targets = self.targets.again(mount, args)?;
        let (settings, awaited) = (args.settings.with(engine), awaited(mount, args));
        Ok(Wanted { settings, targets, awaited, by_name: args.by_name.clone() })
    }

    /// Applies what takes no time, and returns the limits to be set.
    fn apply(
        &mut self,
        request: Wanted,
        watch: &mut Watch<'a>,
        mut report: Report<'a>,
    ) -> Vec<Request> {
        let settings = settings::apply(watch, &mut report, &self.now.settings, &request.settings);
        let mut old = std::mem::replace(&mut self.now, Wanted { settings, ..request });
        for Target { cgroup, .. } in &mut old.targets {
            // A cgroup that was re-created has the limits of the one before.
            if let Ok(again) = watch.mount.resolve(&cgroup.path) {
                *cgroup = again;
            }
        }
        let Wanted { settings, targets, awaited, by_name } = &self.now;
        watch.tree.adopts = !settings.no_adopt;
        let mut gone = old.by_name.difference(by_name);
        let forget = |path: &PathBuf| match watch.mount.absent(path) {
            Some(path) => Notes::of(watch.engine.pins()).forget(&path),
            None => Ok(()),
        };
        let noted = lift(watch.engine, &old, &self.now)
            .and_then(|()| gone.try_for_each(forget))
            .and_then(|()| note(watch.engine, awaited))
            .and_then(|()| watch.tree.catch_up());
        watch.state.parts.outcome(Part::Tree, noted);
        if settings.no_drain != old.settings.no_drain {
            watch.drains = (!settings.no_drain).then(|| Drains::new(watch.engine, watch.mount));
        }
        let engine = watch.engine;
        let (mut requests, mut added) = (Vec::new(), Vec::new());
        for change in diff(&old.targets, targets, |id| in_force(engine, id)) {
            match change {
                Change::Removed(Target { cgroup, .. }) => {
                    report.named(cgroup, false, Ok(Some(STAYS)));
                }
                Change::Limits(target, from, to) => {
                    requests.push(Request { target: target.clone(), from, to });
                }
                Change::Added(target) => added.push(target.clone()),
            }
        }
        self.under_way = Some(UnderWay { report, added: Some(added) });
        requests
    }

    fn set_limits(watch: &mut Watch<'a>, requests: Vec<Request>) {
        if requests.is_empty() {
            return Self::limits_set(watch, Vec::new());
        }
        let pins = watch.engine.pins().clone();
        let work = move |tell: &mut dyn FnMut(Record)| {
            let engine = Engine::open(&pins)?;
            let set = |request: Request| {
                let tried = set(&engine, &request, tell);
                Changed { now: in_force(&engine, request.target.cgroup.id), request, tried }
            };
            Ok(Done::Limits(requests.into_iter().map(set).collect()))
        };
        let started = watch.state.work.start(Part::Reload, work);
        if watch.state.parts.outcome(Part::Reload, started).is_none() {
            Self::limits_set(watch, Vec::new());
        }
    }

    /// Continues once limits are set, or could not be.
    pub fn limits_set(watch: &mut Watch<'a>, changed: Vec<Changed>) {
        let Some(mut reload) = watch.reload.take() else { return };
        let Some(UnderWay { report, added }) = &mut reload.under_way else {
            watch.reload = Some(reload);
            return;
        };
        for Changed { request: Request { target, from, to }, now, tried } in changed {
            report.limits(&target.cgroup, from, to, now, tried);
        }
        for target in added.take().into_iter().flatten() {
            let added = add(&target, watch);
            report.named(&target.cgroup, true, added.map(|()| None));
            watch.state.adopts |= watch.tree.adopts;
        }
        watch.reload = Some(reload);
        if watch.state.adopts { watch.adopt() } else { Self::adopted(watch) }
    }

    /// Whether a reload waits for an adoption.
    pub fn is_adopting(&self) -> bool {
        self.under_way.as_ref().is_some_and(|it| it.added.is_none())
    }

    /// Continues once pages of new cgroups are adopted, or could not be. Others may have asked for the adoption.
    pub fn adopted(watch: &mut Watch<'a>) {
        let Some(reload) = &mut watch.reload else { return };
        let last = reload.under_way.take_if(|it| it.added.is_none());
        let Some(UnderWay { report, .. }) = last else { return };
        report.sum_up();
        if std::mem::take(&mut reload.again) {
            return Self::begin(watch);
        }
        watch.manager.ready(&status(&watch.tree));
    }
}

/// Sets limits as `memstock limit` does.
fn set(engine: &Engine, request: &Request, tell: &mut dyn FnMut(Record)) -> Result<()> {
    let cgroup = &request.target.cgroup;
    let Some(index) = engine.index_of(cgroup.id)? else { return Ok(()) };
    let room = Room { engine, cache: &Cache::default(), cgroup, index, within: LATER };
    setting::set(&room, request.to.into(), false, &mut |record| tell(record))?;
    if let Err(error) = Notes::of(engine.pins()).note(&cgroup.path, request.to) {
        log::warn!("{error:#}");
    }
    Ok(())
}

/// Registers a cgroup as at the start; the loop finds those below it, and their pages are adopted then.
fn add(target: &Target, watch: &mut Watch<'_>) -> Result<()> {
    let engine = watch.engine;
    if target.memsw_limit.is_some_and(|limit| limit != NO_LIMIT) && engine.info().memsw == 0 {
        return Err(Failure::Usage.error(setting::NO_MEMSW));
    }
    let (tracked, cgroup) = (Tracked::read(engine, watch.mount)?.by_path(), &target.cgroup);
    if watch.tree.adopts {
        engine.pins().note_unadopted([cgroup.id])?;
    }
    let registered = register(engine, &tracked, target).inspect_err(|error| {
        drop(engine.pins().adopted(&[cgroup.id].into()));
        watch.tree.leave_out(cgroup, error);
    });
    registered.map(|index| watch.tree.added(cgroup, index))
}

/// Removes the file's limits from the notes of paths that it no longer names, for a cgroup that is created there later.
/// Limits that others have set stay.
fn lift(engine: &Engine, old: &Wanted, new: &Wanted) -> Result<()> {
    let notes = Notes::of(engine.pins());
    let named = |wanted: &Wanted, path: &Path| {
        let mut awaited = wanted.awaited.iter().map(|(path, _)| path);
        awaited.any(|it| it == path) || wanted.targets.iter().any(|it| it.cgroup.path == path)
    };
    let targets = old.targets.iter().map(|it| (&it.cgroup.path, it.limits()));
    for (path, by_file) in old.awaited.iter().map(|(path, it)| (path, *it)).chain(targets) {
        let Some(noted) = notes.limits(path)?.filter(|_| !named(new, path)) else { continue };
        let kept = |by_file, noted| if by_file == NO_LIMIT { noted } else { NO_LIMIT };
        let memory = kept(by_file.memory, noted.memory);
        notes.note(path, Limits { memory, memsw: kept(by_file.memsw, noted.memsw) })?;
    }
    Ok(())
}

fn in_force(engine: &Engine, id: u64) -> Option<Limits> {
    let found = engine.find(id);
    let found = found.inspect_err(|error| log::warn!("cannot read the limits in force: {error:#}"));
    found.ok().flatten().map(|(_, counter)| Limits::of(&counter))
}
