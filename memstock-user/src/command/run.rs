//! `memstock run`: has an engine started or adopted, starts COMMAND, watches, and cleans up.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

use super::start::{RemovePins, remove_noted, start};
use super::watch::{Signals, Watch};
use crate::cgroup::{ById, CgroupMount};
use crate::cli::Run;
use crate::engine::events;
use crate::engine::pins::Pins;
use crate::lock::EngineLock;
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
        run_engine(&args, &mut signals).await
    })
}

/// Everything made here is undone in reverse order, however this ends.
async fn run_engine(args: &Run, signals: &mut Signals) -> Result<u8> {
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
    // Under the lock, so that no other run takes away an empty one that it has just mounted.
    let bpffs = host::bpffs()?;
    let pins = Pins::on(bpffs.dir);
    let mut started = start(args, &pins, mount, lock)?;
    // Not before: what is learnt of the kernel is learnt from memory that is not there yet.
    let protection = protect();
    let mut tree = Tree::of(&started.engine, mount)?;
    tree.catch_up();
    started.adopt_pages(args, mount)?;
    let child = match args.command.as_slice() {
        [] => None,
        [command, args @ ..] => {
            let procs = started.targets.home()?.procs()?;
            Some(launch::start(command, args, procs, &protection)?)
        }
    };
    if started.pinned.is_none() {
        // Nobody left to tell if standard error is gone.
        let _ = writeln!(io::stderr(), "event: engine-adopted pins={}", pins.root().display());
    }
    let pinned = started.pinned.take().unwrap_or_else(|| RemovePins(&pins));
    let watch = Watch {
        engine: &started.engine,
        mount,
        tree,
        events: events(&pins)?,
        log: started.log.take(),
        child,
        seconds: args.seconds,
        events_lost: 0,
    };
    let code = watch.run(signals).await?;

    drop(pinned);
    if let Some(owned) = started.targets.owned {
        owned.remove()?;
    }
    // Of the daemons before us.
    remove_noted(mount, lock)?;
    bpffs.release()?;
    Ok(code)
}
