//! `memstock run`: loads, registers, attaches, adopts, starts COMMAND, watches, and cleans up.

use anyhow::{Context as _, Result};

use super::targets::Targets;
use super::watch::{Signals, Watch};
use crate::cgroup::CgroupMount;
use crate::cli::Run;
use crate::drains::{Drains, drain_offline};
use crate::enforce::Policy;
use crate::enforce::duty::Duty;
use crate::engine::load::{Settings, load};
use crate::engine::pins::Pins;
use crate::exit::Failure;
use crate::hotplug::Hotplug;
use crate::journal::Journal;
use crate::kernel_cgroup::KernelCgroups;
use crate::lock::EngineLock;
use crate::loss::Losses;
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
    // Ends when all else has: its readers take that for the end of the engine.
    let journal = Journal::open(args.events_bytes)?;
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
        memsw: args.memsw || !args.memsw_limits.is_empty() || host::has_swap()?,
        trace: args.trace,
    };
    let pinned = RemovePins(&pins);
    let mut loaded = load(&pins, settings)?;
    targets.register(&mut loaded.engine)?;
    let (engine, log) = loaded.attach()?;
    // From now on the kernel half sees to those that go.
    let hotplug = Hotplug::new()?;
    let offline = drain_offline(&engine)?;
    if offline.nr_pages() > 0 {
        journal.publish(offline.into());
    }
    let mut tree = Tree::of(&engine, &mount, &journal)?;
    tree.announce();
    tree.catch_up();
    if !args.no_adopt {
        let adopted = adoption::adopt(&engine, &mount, &kernel)?;
        log::info!("{adopted}");
    }
    let policy = Policy { observe: args.observe, oom_group: args.oom_group };
    let duty = Duty::start(&pins, kernel, policy)?;
    let child = match args.command.as_slice() {
        [] => None,
        [command, args @ ..] => Some(launch::start(command, args, targets.home.procs()?)?),
    };
    let watch = Watch {
        engine: &engine,
        mount: &mount,
        tree,
        duty,
        drains: (!args.no_drain).then(|| Drains::new(&engine, &mount)),
        hotplug,
        log,
        child,
        seconds: args.seconds,
        journal: &journal,
        losses: Losses::default(),
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
