//! `memstock run`: starts or adopts an engine, starts COMMAND, watches, and cleans up.

use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::Notify;

use super::closed_pipe_is_success;
use super::outcome::Outcome;
use super::reload::Reload;
use super::signals::Signals;
use super::start::{Started, catch_up, remove_noted, start};
use super::watch::{State, Watch};
use crate::cli::Run;
use crate::cli::config;
use crate::daemon::hotplug::Hotplug;
use crate::daemon::loss::Losses;
use crate::daemon::sweep::Sweep;
use crate::daemon::tree::Tree;
use crate::enforce::Policy;
use crate::enforce::drains::{Drains, drain_offline};
use crate::enforce::enforcer::Enforcer;
use crate::engine::kernel_slots::KernelSlots;
use crate::engine::pins::{Pins, undo_on_error};
use crate::exit::Failure;
use crate::host;
use crate::host::cgroup::{ById, Cgroup, CgroupMount};
use crate::host::launch::{self, Ended};
use crate::host::lock::EngineLock;
use crate::host::notify::Manager;
use crate::host::protect::{Protection, protect};
use crate::host::workload::find::find;
use crate::journal::{Journal, Record};
use crate::view::metrics::{Metrics, server};
use crate::view::show::observed::Observed;

/// Runs an engine until COMMAND ends, the time is up, or a signal comes; returns the exit code.
///
/// # Errors
/// The host, a cgroup or the kernel does not allow it. A failed start leaves nothing behind; a running engine is left
/// for the next daemon to adopt.
pub fn run(args: Run) -> Result<u8> {
    if args.check {
        let summary = config::summary(&args)?;
        return closed_pipe_is_success(writeln!(io::stdout(), "{summary}"));
    }
    let reloads = args.config.is_some();
    with_signals(reloads, async |signals| Ok(run_alone(&args, signals, &mut ()).await?.code()))
}

/// Runs `body` with SIGINT, SIGTERM and SIGHUP caught from beginning to end.
pub(super) fn with_signals<T>(
    reloads: bool,
    body: impl AsyncFnOnce(&mut Signals) -> Result<T>,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async { body(&mut Signals::catch(reloads)?).await })
}

/// Follows a run from its start to its end.
pub(super) trait RunObserver {
    /// COMMAND, if there is one, is about to be started in `home`. May return a notification that ends the run.
    ///
    /// # Errors
    /// COMMAND is not started then.
    fn begin(&mut self, _pins: &Pins, _home: &Cgroup) -> Result<Option<Arc<Notify>>> {
        Ok(None)
    }

    /// COMMAND was started, if there is one.
    fn launched(&mut self) {}

    /// COMMAND has ended, if there was one; the engine is still there.
    fn end(&mut self, _command: Option<&Ended>) {}
}

/// Follows nothing.
impl RunObserver for () {}

/// However this ends, everything made here but a running engine is undone in reverse order.
pub(super) async fn run_alone(
    args: &Run,
    signals: &mut Signals,
    observer: &mut dyn RunObserver,
) -> Result<Outcome> {
    host::require_privilege()?;
    let mount = CgroupMount::find()?;
    let mut flags = args.clone();
    for wanted in args.named.wanted() {
        flags.cgroups.push(find(&mount, &wanted)?.path);
    }
    let flags = &flags;
    let asked = Asked { flags, args: &config::with_file(flags, &mount)? };
    if asked.args.settings.kernel_stock && asked.args.settings.metrics.is_none() {
        return Err(Failure::Usage.error("--kernel-stock is served with metrics: give --metrics"));
    }
    let mut lock = EngineLock::acquire()?;
    let ended = run_locked(asked, signals, observer, &mount, &mut lock).await;
    // A cgroup that still exists stays noted, for the next run or for `stop`.
    if let Err(error) = lock.forget(|id| mount.cgroup_of(id) == ById::Gone) {
        log::warn!("{error:#}");
    }
    ended
}

/// What is to be run.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// The command line alone.
    flags: &'a Run,
    /// The command line merged with its file.
    args: &'a Run,
}

async fn run_locked(
    asked: Asked<'_>,
    signals: &mut Signals,
    observer: &mut dyn RunObserver,
    mount: &CgroupMount,
    lock: &mut EngineLock,
) -> Result<Outcome> {
    // Before anything is made: without the address, the run does not begin.
    let listener = asked.args.settings.metrics.map(server::bind).transpose()?;
    // Under the lock, so that no other run unmounts an empty bpffs that it has just mounted.
    let bpffs = host::bpffs()?;
    let pins = Pins::on(bpffs.dir);
    // Ends last: its readers take that for the end of the engine.
    let journal = Journal::open(asked.args.events_bytes, !asked.args.is_measured)?;
    let ended = run_engine(asked, signals, observer, mount, lock, &pins, &journal, listener).await;
    // If the engine still runs, so does the stream, for the daemon that adopts it. One of another version is not adopted,
    // and `stop` ends both.
    if !pins.exist() && pins.of_other_versions().is_ok_and(|others| others.is_empty()) {
        journal.end()?;
    }
    let outcome = ended?;
    bpffs.release()?;
    Ok(outcome)
}

#[expect(clippy::too_many_arguments, reason = "it owns none of them")]
async fn run_engine(
    asked: Asked<'_>,
    signals: &mut Signals,
    observer: &mut dyn RunObserver,
    mount: &CgroupMount,
    lock: &mut EngineLock,
    pins: &Pins,
    journal: &Journal,
    listener: Option<TcpListener>,
) -> Result<Outcome> {
    let args = asked.args;
    if args.is_measured && pins.exist() {
        // If it were adopted, it would end with COMMAND.
        return Err(Failure::Running.error(
            "an engine is charging already: adopt it with \"memstock run\", or end it with \
             \"memstock stop\"",
        ));
    }
    let mut started = start(args, pins, mount, lock, journal)?;
    let is_new = started.is_new;
    // Not dropped on an error: the engine and the cgroup stay for the next daemon to adopt.
    let owned = started.targets.owned.take().map(ManuallyDrop::new);
    let begun = watch(asked, &mut started, observer, mount, pins, journal, listener);
    let mut watch = match begun {
        Ok(watch) => watch,
        Err(error) => {
            let failed = Err(error);
            let failed = if is_new { undo_on_error(pins, failed) } else { failed };
            drop(owned.map(ManuallyDrop::into_inner));
            return failed;
        }
    };
    let end = watch.run(signals).await?;
    let outcome = watch.finish(end).await;
    observer.end(outcome.as_ref().ok().and_then(|outcome| outcome.command.as_ref()));
    // The engine ends here, and only because it was told to.
    pins.remove()?;
    owned.map_or(Ok(()), |owned| ManuallyDrop::into_inner(owned).remove())?;
    // Cgroups of earlier daemons.
    remove_noted(mount, lock)?;
    Ok(Outcome { home: started.targets.home().ok().cloned(), ..outcome? })
}

/// Starts COMMAND and all that the daemon watches of an engine that charges.
fn watch<'a>(
    Asked { flags, args }: Asked<'a>,
    started: &'a mut Started,
    observer: &mut dyn RunObserver,
    mount: &'a CgroupMount,
    pins: &Pins,
    journal: &'a Journal,
    listener: Option<TcpListener>,
) -> Result<Watch<'a>> {
    let state = State::new(journal)?;
    let log = started.log.take();
    let started = &*started;
    let (engine, is_new) = (&started.engine, started.is_new);
    // First: other verbs can use the engine already.
    let mut tree = Tree::of(engine, mount, journal)?;
    tree.adopts = !args.settings.no_adopt;
    if is_new {
        tree.announce();
    }
    catch_up(&mut tree)?;
    // Not earlier: the kernel's layout is learnt from memory that is not populated yet. A measured run needs no
    // protection, and locked memory would count as COMMAND's before its exec.
    let protection = if args.is_measured { Protection::default() } else { protect() };
    // From now on the kernel half drains CPUs that go offline.
    let hotplug = Hotplug::new()?;
    let offline = drain_offline(engine)?;
    if offline.nr_pages() > 0 {
        journal.publish(offline.into());
    }
    started.adopt_pages(args, mount)?;
    // Read once: only that shows whether it is as this kernel's types say.
    let kernel = args.settings.kernel_stock.then(|| -> Result<_> {
        let mut slots = KernelSlots::load(false)?;
        slots.stranded()?;
        slots.warn_of_isolated()?;
        Ok(slots)
    });
    let kernel = kernel.transpose()?;
    let policy = Policy { observe: args.settings.observe, oom_group: args.settings.oom_group };
    let enforcer = Enforcer::start(pins, policy)?;
    let metrics = listener.map(|listener| Metrics::start(listener, mount.dir())).transpose()?;
    let over = match started.targets.home() {
        Ok(home) => observer.begin(pins, home)?,
        Err(_) => None,
    };
    let child = match args.command.as_slice() {
        [] => None,
        [command, args @ ..] => {
            let procs = started.targets.home()?.procs()?;
            Some(launch::start(command, args, procs, &protection)?)
        }
    };
    observer.launched();
    // Earlier losses of an adopted engine have been reported.
    let losses = if is_new { Losses::default() } else { Losses::until_now(engine)? };
    if !is_new {
        let pins = pins.root().display().to_string();
        journal.publish(Record::EngineAdopted { pins });
    }
    Ok(Watch {
        engine,
        mount,
        tree,
        enforcer,
        policy,
        drains: (!args.settings.no_drain).then(|| Drains::new(engine, mount)),
        hotplug,
        log,
        child,
        is_measured: args.is_measured,
        seconds: args.seconds,
        quiet: args.quiet,
        journal,
        losses,
        sweep: Sweep::default(),
        observed: Observed::default(),
        reload: Reload::new(flags, args, engine, &started.targets),
        metrics,
        kernel,
        over,
        manager: Manager::from_env(),
        state,
    })
}
