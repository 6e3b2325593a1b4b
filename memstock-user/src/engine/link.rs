//! Links of programs to tracepoints and functions.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::{ProgramError, RawTracePoint};

use super::object::program;
use super::pins::Pins;

/// Attaches a program; none if the kernel has no such tracepoint.
pub(super) fn link_to(
    program: &mut RawTracePoint,
    tracepoint: &str,
) -> Result<Option<RawTracePointLinkId>> {
    match program.attach(tracepoint) {
        Ok(id) => Ok(Some(id)),
        Err(ProgramError::SyscallError(call))
            if call.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(anyhow::Error::new(error)
            .context(format!("cannot attach to the tracepoint {tracepoint}"))),
    }
}

/// Pins a link.
pub(super) fn pin_link(link: FdLink, pins: &Pins, name: &str, tracepoint: &str) -> Result<()> {
    link.pin(pins.link(name, tracepoint))
        .map(drop)
        .with_context(|| format!("cannot pin the link to {tracepoint}"))
}

/// Attaches a program and pins the link; false if the kernel has no such tracepoint.
pub(super) fn attach_to(
    ebpf: &mut Ebpf,
    pins: &Pins,
    name: &str,
    tracepoint: &str,
) -> Result<bool> {
    let program = program(ebpf, name)?;
    let Some(id) = link_to(program, tracepoint)? else { return Ok(false) };
    pin_link(FdLink::from(program.take_link(id)?), pins, name, tracepoint)?;
    Ok(true)
}
