//! One file a verb; this one only chooses.

pub mod audit;
pub mod drain;
pub mod run;
pub mod show;
mod start;
pub mod stop;
mod targets;
mod watch;

use std::io;

use anyhow::Result;

use crate::cgroup::CgroupMount;
use crate::cli::{Cli, Verb};
use crate::engine::Engine;
use crate::engine::pins::Pins;
use crate::host;

/// Does what the command line says; returns the exit code.
///
/// # Errors
/// Whatever went wrong, with its exit code somewhere in the chain.
pub fn execute(cli: Cli) -> Result<u8> {
    match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Show(args) => show::show(&args),
        Verb::Drain(args) => drain::drain(&args),
        Verb::Audit(args) => audit::audit(&args),
        Verb::Stop => stop::stop(),
    }
}

/// Opens the running engine for a verb that works on its pins.
fn attached() -> Result<(Engine, CgroupMount)> {
    host::require_privilege()?;
    let engine = Engine::open(&Pins::on(host::BPFFS.as_ref()))?;
    Ok((engine, CgroupMount::find()?))
}

/// A reader that went away (`memstock show | head -1`) has what it wanted.
fn closed_pipe_is_success(written: io::Result<()>) -> Result<u8> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        written => Ok(written.map(|()| 0)?),
    }
}
