//! `memstock run`: loads, registers, attaches, adopts, starts COMMAND, watches, and cleans up.

use anyhow::{Context as _, Result};

use super::targets::Targets;
use super::watch::{Signals, Watch};
use crate::cgroup::CgroupMount;
use crate::cli::Run;
use crate::engine::events;
use crate::engine::load::{Settings, load};
use crate::engine::pins::Pins;
use crate::exit::Failure;
use crate::kernel_cgroup::KernelCgroups;
use crate::lock::EngineLock;
use crate::protect::protect;
use crate::tree::Tree;
use crate::{adoption, host, launch, lock};

/// Runs an engine until COMMAND ends, the time is up, or a signal comes; returns the exit code.
///
/// # Errors
/// The environment, a cgroup or the kernel does not allow it. Nothing stays behind.
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
    let pins = Pins::on(host::BPFFS.as_ref());
    if lock::holder()?.is_none() {
        // Before the lock is taken: taking it ends what the dead daemon noted for `stop`.
        no_remains(&pins)?;
    }
    let lock = EngineLock::acquire()?;
    // The holder may have died just now.
    no_remains(&pins)?;
    // Under the lock, so that no other run takes away an empty one that it has just mounted.
    let bpffs = host::bpffs()?;
    let mount = CgroupMount::find()?;
    if let Some(id) = lock.noted_before() {
        mount.remove_left_behind(id)?;
    }
    let targets = Targets::prepare(&mount, args)?;
    if let Some(owned) = &targets.owned {
        lock.note_cgroup(owned.cgroup().id)?;
    }
    let kernel = KernelCgroups::find(&mount, &args.kernel_cgroups, &targets.paths())?;

    let settings = Settings {
        batch: args.batch,
        slots: args.slots,
        memsw: args.memsw || host::has_swap()?,
        trace: args.trace,
    };
    let pinned = RemovePins(&pins);
    let mut loaded = load(&pins, settings)?;
    targets.register(&mut loaded.engine)?;
    let (engine, log) = loaded.attach()?;
    // Not before: what is learnt of the kernel is learnt from memory that is not there yet.
    let protection = protect();
    let mut tree = Tree::of(&engine, &mount)?;
    tree.catch_up();
    if !args.no_adopt {
        let adopted = adoption::adopt(&engine, &mount, &kernel)?;
        log::info!("{adopted}");
    }
    let child = match args.command.as_slice() {
        [] => None,
        [command, args @ ..] => Some(launch::start(command, args, targets.home.procs()?, &protection)?),
    };
    let watch = Watch {
        engine: &engine,
        mount: &mount,
        tree,
        events: events(&pins)?,
        log,
        child,
        seconds: args.seconds,
        events_lost: 0,
    };
    let code = watch.run(signals).await?;

    drop(pinned);
    if let Some(owned) = targets.owned {
        owned.remove()?;
    }
    bpffs.release()?;
    Ok(code)
}

/// Refuses to start among the pins of an engine whose daemon died: it is still charging.
fn no_remains(pins: &Pins) -> Result<()> {
    if pins.exist() {
        return Err(Failure::Running.error(
            "an engine whose daemon died is still charging: end it with \"memstock stop\"",
        ));
    }
    Ok(())
}

/// Removes the pins when it goes out of scope.
struct RemovePins<'a>(&'a Pins);

impl Drop for RemovePins<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            log::error!("{error:#}");
        }
    }
}
