//! `memstock run`: has an engine started or adopted, starts COMMAND, watches, and cleans up.

use std::net::TcpListener;

use anyhow::{Context as _, Result};

use super::start::{RemovePins, remove_noted, start};
use super::watch::{Signals, Watch};
use crate::cgroup::{ById, CgroupMount};
use crate::cli::Run;
use crate::drains::{Drains, drain_offline};
use crate::enforce::Policy;
use crate::enforce::duty::Duty;
use crate::engine::pins::Pins;
use crate::hotplug::Hotplug;
use crate::journal::{Journal, Record};
use crate::lock::EngineLock;
use crate::loss::Losses;
use crate::metrics::{Metrics, server};
use crate::protect::protect;
use crate::tree::Tree;
use crate::{host, launch};

/// Runs an engine until COMMAND ends, the time is up, or a signal comes; returns the exit code.
///
/// # Errors
/// The environment, a cgroup or the kernel does not allow it. Nothing that was made stays behind.
pub fn run(args: Run) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = Signals::catch()?;
        run_alone(&args, &mut signals).await
    })
}

/// Everything made here is undone in reverse order, however this ends.
async fn run_alone(args: &Run, signals: &mut Signals) -> Result<u8> {
    host::require_privilege()?;
    let mount = CgroupMount::find()?;
    let mut lock = EngineLock::acquire()?;
    let ended = run_locked(args, signals, &mount, &mut lock).await;
    // What is still there stays noted, for the next run or for `stop`.
    if let Err(error) = lock.forget(|id| mount.cgroup_of(id) == ById::Gone) {
        log::warn!("{error:#}");
    }
    ended
}

async fn run_locked(
    args: &Run,
    signals: &mut Signals,
    mount: &CgroupMount,
    lock: &mut EngineLock,
) -> Result<u8> {
    // Before anything is made: an address that cannot be had is no reason to begin.
    let listener = args.metrics.map(server::bind).transpose()?;
    // Under the lock, so that no other run takes away an empty one that it has just mounted.
    let bpffs = host::bpffs()?;
    let pins = Pins::on(bpffs.dir);
    // Ends when all else has: its readers take that for the end of the engine.
    let journal = Journal::open(args.events_bytes)?;
    let ended = run_engine(args, signals, mount, lock, &pins, &journal, listener).await;
    if pins.exist() {
        // It could not be adopted, and goes on.
        journal.leave();
    }
    let code = ended?;
    bpffs.release()?;
    Ok(code)
}

async fn run_engine(
    args: &Run,
    signals: &mut Signals,
    mount: &CgroupMount,
    lock: &mut EngineLock,
    pins: &Pins,
    journal: &Journal,
    listener: Option<TcpListener>,
) -> Result<u8> {
    let mut started = start(args, pins, mount, lock, journal)?;
    // Not before: what is learnt of the kernel is learnt from memory that is not there yet.
    let protection = protect();
    // From now on the kernel half sees to those that go.
    let hotplug = Hotplug::new()?;
    let offline = drain_offline(&started.engine)?;
    if offline.nr_pages() > 0 {
        journal.publish(offline.into());
    }
    let mut tree = Tree::of(&started.engine, mount, journal)?;
    let is_new = started.pinned.is_some();
    if is_new {
        tree.announce();
    }
    tree.catch_up();
    started.adopt_pages(args, mount)?;
    let policy = Policy { observe: args.observe, oom_group: args.oom_group };
    let duty = Duty::start(pins, started.kernel.clone(), policy)?;
    let child = match args.command.as_slice() {
        [] => None,
        [command, args @ ..] => {
            let procs = started.targets.home()?.procs()?;
            Some(launch::start(command, args, procs, &protection)?)
        }
    };
    // What an adopted engine has lost before was told of.
    let losses = if is_new { Losses::default() } else { Losses::until_now(&started.engine)? };
    if !is_new {
        let pins = pins.root().display().to_string();
        journal.publish(Record::EngineAdopted { pins });
    }
    // From here on they are ours, whoever made them.
    let pinned = match started.pinned.take() {
        Some(pinned) => pinned,
        None => RemovePins(pins),
    };
    let metrics = listener.map(|listener| Metrics::start(listener, pins)).transpose()?;
    let watch = Watch {
        engine: &started.engine,
        mount,
        tree,
        duty,
        drains: (!args.no_drain).then(|| Drains::new(&started.engine, mount)),
        hotplug,
        log: started.log.take(),
        child,
        seconds: args.seconds,
        journal,
        losses,
        metrics,
    };
    let code = watch.run(signals).await?;

    drop(pinned);
    if let Some(owned) = started.targets.owned {
        owned.remove()?;
    }
    // Of the daemons before us.
    remove_noted(mount, lock)?;
    Ok(code)
}
