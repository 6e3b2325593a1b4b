//! Owns how `memstock run` gets its engine: loads a new one, or adopts the one that a killed daemon left charging. Must
//! not start COMMAND or watch: `run` does.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use aya_log::EbpfLogger;
use memstock_common::{DEFAULT_BATCH, DEFAULT_MAX_CGROUPS, EngineInfo};

use super::targets::Targets;
use crate::audit::adoption;
use crate::cli::Run;
use crate::daemon::tree::Tree;
use crate::engine::Engine;
use crate::engine::grace::grace_period;
use crate::engine::load::{Settings, load};
use crate::engine::pins::{Pins, undo_on_error};
use crate::engine::remains;
use crate::exit::Failure;
use crate::host;
use crate::host::cgroup::{ById, CgroupMount};
use crate::host::lock::EngineLock;
use crate::journal::Journal;

/// An engine that charges, with its cgroups.
pub struct Started {
    /// Whether it is new: a failed start removes a new engine, and leaves an adopted one as it was found.
    pub is_new: bool,
    /// The engine.
    pub engine: Engine,
    /// Its log, when it has one.
    pub log: Option<EbpfLogger<&'static dyn log::Log>>,
    /// The cgroups of the command line.
    pub targets: Targets,
    /// Cgroups, by id, whose adoption was cut short when the daemon was killed.
    interrupted: BTreeSet<u64>,
}

/// Starts or adopts an engine. The lock is held.
///
/// A cgroup that a dead daemon made for its run stays with the engine that tracks it, and keeps its tasks: the run that
/// adopts the engine takes it over by its name, and removes it when it ends. Without an engine to adopt, it is removed
/// at once, as `memstock stop` does; its tasks go to its parent.
///
/// # Errors
/// The engine cannot be adopted as the command line wants it, or the kernel does not allow a new one.
pub fn start(
    args: &Run,
    pins: &Pins,
    mount: &CgroupMount,
    lock: &mut EngineLock,
    journal: &Journal,
) -> Result<Started> {
    match remains::adopt(pins)? {
        Some(engine) => adopt(engine, args, mount, lock, journal),
        None => afresh(args, pins, mount, lock),
    }
}

fn afresh(args: &Run, pins: &Pins, mount: &CgroupMount, lock: &mut EngineLock) -> Result<Started> {
    remove_noted(mount, lock)?;
    let targets = prepare(args, mount, lock, None)?;
    let settings = Settings {
        batch: args.settings.batch.unwrap_or(DEFAULT_BATCH),
        slots: args.settings.slots.unwrap_or(1),
        max_cgroups: args.settings.max_cgroups.unwrap_or(DEFAULT_MAX_CGROUPS),
        memsw: args.settings.memsw || !args.memsw_limits.is_empty() || host::has_swap()?,
        trace: args.trace,
        ..Settings::default()
    };
    let loaded = load(pins, settings)?;
    let registered = note_unadopted(args, &targets, &loaded.engine)
        .and_then(|()| targets.register(&loaded.engine, mount));
    undo_on_error(pins, registered)?;
    let (engine, log) = loaded.attach()?;
    let interrupted = BTreeSet::new();
    Ok(Started { engine, log, targets, is_new: true, interrupted })
}

fn adopt(
    engine: Engine,
    args: &Run,
    mount: &CgroupMount,
    lock: &mut EngineLock,
    journal: &Journal,
) -> Result<Started> {
    same_settings(args, &engine)?;
    // The daemon may have been killed after closing a cgroup, before it had waited for probes that still used it.
    grace_period()?;
    // Read before the tree notes cgroups, whose adoption was not interrupted.
    let interrupted = engine.pins().unadopted()?;
    // Follows cgroups created and removed without a daemon, so that the named ones get the right parents.
    let mut tree = Tree::of(&engine, mount, journal)?;
    tree.adopts = !args.settings.no_adopt;
    catch_up(&mut tree)?;
    tree.retry()?;
    tree.release()?;
    drop(tree);
    if let Some(path) = lock.making() {
        mount.remove_unused(path);
    }
    let inherited = lock.noted().to_vec();
    let targets = prepare(args, mount, lock, Some(&inherited))?;
    note_unadopted(args, &targets, &engine)?;
    targets.register(&engine, mount)?;
    Ok(Started { engine, log: None, targets, is_new: false, interrupted })
}

/// Tracks every cgroup that is to be tracked.
///
/// # Errors
/// The kernel refuses.
pub fn catch_up(tree: &mut Tree<'_>) -> Result<()> {
    tree.catch_up()?;
    tree.look_again()?;
    while tree.has_unseen() {
        tree.look_below()?;
    }
    Ok(())
}

fn prepare(
    args: &Run,
    mount: &CgroupMount,
    lock: &mut EngineLock,
    inherited: Option<&[u64]>,
) -> Result<Targets> {
    let make = |name: &Path| {
        // An existing cgroup is somebody else's, and must not be noted as ours even for a moment.
        if mount.resolve(name).is_err() {
            lock.note_making(name)?;
        }
        let made = mount.create(name);
        match &made {
            Ok(made) => lock.note_cgroup(made.cgroup().id)?,
            Err(_) => lock.forget(|_| false)?,
        }
        made
    };
    Targets::prepare(mount, args, inherited, make)
}

/// Removes the cgroups that dead daemons had made, and their notes.
///
/// # Errors
/// One stays busy.
pub fn remove_noted(mount: &CgroupMount, lock: &mut EngineLock) -> Result<()> {
    if let Some(path) = lock.making() {
        mount.remove_unused(path);
    }
    for &id in lock.noted() {
        mount.remove_left_behind(id)?;
    }
    lock.forget(|_| true)
}

/// Called before they are registered: afterwards nobody can tell which of their pages were there before.
fn note_unadopted(args: &Run, targets: &Targets, engine: &Engine) -> Result<()> {
    if args.settings.no_adopt {
        return Ok(());
    }
    engine.pins().note_unadopted(targets.untracked(engine)?)
}

/// Refuses given settings that differ from the engine's, which cannot be changed.
fn same_settings(args: &Run, engine: &Engine) -> Result<()> {
    let info = engine.info();
    let EngineInfo { layout: _, batch, slots, memsw, page_base: _, page_struct_size: _ } = info;
    let max_cgroups = engine.max_cgroups();
    let differs = |what: String| {
        Err(Failure::Running.error(format!(
            "the engine that is charging {what}: leave that out to adopt it, or end it with \
             \"memstock stop\""
        )))
    };
    match (args.settings.batch, args.settings.slots) {
        (Some(asked), _) if asked != batch => differs(format!("has --batch {batch}, not {asked}")),
        (_, Some(asked)) if asked != slots => differs(format!("has --slots {slots}, not {asked}")),
        _ if args.settings.max_cgroups.is_some_and(|asked| asked != max_cgroups) => {
            let asked = args.settings.max_cgroups.unwrap_or_default();
            differs(format!("has --max-cgroups {max_cgroups}, not {asked}"))
        }
        _ if (args.settings.memsw || !args.memsw_limits.is_empty()) && memsw == 0 => {
            differs("was started without --memsw".into())
        }
        // Nothing shows whether it logs, and --trace must not be ignored.
        _ if args.trace => differs("cannot be adopted with --trace".into()),
        _ => Ok(()),
    }
}

impl Started {
    /// Adopts the pages that new cgroups already hold, unless `--no-adopt` is given.
    ///
    /// # Errors
    /// A map or a file in `/proc` cannot be read, or the engine refuses.
    pub fn adopt_pages(&self, args: &Run, mount: &CgroupMount) -> Result<()> {
        let Self { engine, interrupted, .. } = self;
        adopt_noted(engine, mount, interrupted, args.settings.no_adopt)
    }
}

/// Adopts the pages that noted cgroups already hold, unless `no_adopt`; some pages of `interrupted` ones may be charged
/// already.
///
/// # Errors
/// A map or a file in `/proc` cannot be read, or the engine refuses.
pub fn adopt_noted(
    engine: &Engine,
    mount: &CgroupMount,
    interrupted: &BTreeSet<u64>,
    no_adopt: bool,
) -> Result<()> {
    let mut unadopted = engine.pins().unadopted()?;
    if !no_adopt {
        // Those that are noted and not tracked yet keep their notes for the next time.
        for id in unadopted.clone() {
            if engine.index_of(id)?.is_none() && !matches!(mount.cgroup_of(id), ById::Gone) {
                unadopted.remove(&id);
            }
        }
        if !unadopted.is_empty() {
            if !interrupted.is_empty() {
                adoption::undo(engine, mount, interrupted)?;
            }
            let adopted = adoption::adopt(engine, mount, &unadopted)?;
            log::info!("{adopted}");
        }
    }
    engine.pins().adopted(&unadopted)
}
