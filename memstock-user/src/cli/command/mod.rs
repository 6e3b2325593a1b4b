//! One file per verb; this one dispatches.

pub mod audit;
mod beside;
pub mod completions;
pub mod doctor;
pub mod drain;
pub mod events;
pub mod force_empty;
pub mod guard;
pub mod kernel;
pub mod limit;
pub mod man;
mod outcome;
pub mod recommend;
pub mod record;
pub mod rehearse;
mod reload;
pub mod replay;
pub mod report;
pub mod run;
pub mod show;
mod signals;
mod start;
pub mod stat;
pub mod stop;
mod targets;
pub mod top;
pub mod verify;
mod watch;

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cli::{Cli, Named, Verb};
use crate::engine::Engine;
use crate::engine::pins::Pins;
use crate::exit::Failure;
use crate::host;
use crate::host::cgroup::{Cgroup, CgroupMount, display, join_host_namespace};
use crate::host::protect::share_arenas;
use crate::host::workload::find::find;

/// Runs the verb; returns the exit code.
///
/// # Errors
/// Whatever goes wrong, with its exit code somewhere in the chain.
pub fn execute(cli: Cli) -> Result<u8> {
    join_host_namespace();
    share_arenas();
    match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Show(args) => show::show(&args),
        Verb::Top(args) => top::top(&args),
        Verb::Drain(args) => drain::drain(&args),
        Verb::Audit(args) => audit::audit(&args),
        Verb::Limit(args) => limit::limit(&args),
        Verb::ForceEmpty(args) => force_empty::force_empty(&args),
        Verb::Kernel(args) => kernel::kernel(&args),
        Verb::Events(args) => events::events(&args),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Stat(args) => stat::stat(args),
        Verb::Record(args) => record::record(args),
        Verb::Rehearse(args) => rehearse::rehearse(&args),
        Verb::Replay(args) => replay::replay(&args),
        Verb::Recommend(args) => recommend::recommend(&args),
        Verb::Report(args) => report::report(&args),
        Verb::Verify(args) => verify::verify(&args),
        Verb::Stop => stop::stop(),
        Verb::Completions(args) => completions::completions(&args),
        Verb::Man(args) => man::man(&args),
        Verb::Guard => guard::guard(),
    }
}

/// Opens the running engine for a verb that works on its pins.
fn attached() -> Result<(Engine, CgroupMount)> {
    host::require_privilege()?;
    let engine = Engine::open(&Pins::on(host::BPFFS.as_ref()))?;
    Ok((engine, CgroupMount::find()?))
}

/// The cgroup given by PATH or by name; none if neither is.
fn meant(mount: &CgroupMount, path: Option<&Path>, named: &Named) -> Result<Option<Cgroup>> {
    match (path, named.wanted().as_slice()) {
        (None, []) => Ok(None),
        (Some(path), []) => mount.resolve(path).map(Some),
        (None, [wanted]) => find(mount, wanted).map(Some),
        _ => Err(Failure::Usage.error("more than one cgroup is named: name one")),
    }
}

/// If a cgroup is named, sets `path` to its path.
fn path_of_name(named: &Named, path: &mut Option<PathBuf>) -> Result<()> {
    if named.wanted().is_empty() {
        return Ok(());
    }
    *path = meant(&CgroupMount::find()?, path.as_deref(), named)?.map(|cgroup| cgroup.path);
    Ok(())
}

/// The tracked cgroup given by PATH or by name, and its counter index; none if neither is given.
fn target(
    engine: &Engine,
    mount: &CgroupMount,
    path: Option<&Path>,
    named: &Named,
) -> Result<Option<(Cgroup, u32)>> {
    let Some(cgroup) = meant(mount, path, named)? else { return Ok(None) };
    let index = engine.index_of(cgroup.id)?.ok_or_else(|| {
        Failure::Cgroup.error(format!("{} is not tracked by the engine", display(&cgroup.path)))
    })?;
    Ok(Some((cgroup, index)))
}

/// As [`target`], for a verb that needs one.
fn one_target(
    engine: &Engine,
    mount: &CgroupMount,
    path: Option<&Path>,
    named: &Named,
) -> Result<(Cgroup, u32)> {
    target(engine, mount, path, named)?.context("no cgroup is named")
}

/// A closed pipe (`memstock show | head -1`) is success: the reader has what it wanted.
fn closed_pipe_is_success(written: io::Result<()>) -> Result<u8> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        written => written.map(|()| 0).context("cannot write to standard output"),
    }
}
