//! Links of programs to tracepoints and functions.

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{Program, ProgramError};

use super::object::{program, raw, refused};
use super::pins::Pins;

/// Attaches a program; none if the kernel has no such tracepoint. Dropping the link detaches it.
pub(super) fn link_to(program: &mut Program, tracepoint: &str) -> Result<Option<FdLink>> {
    let attached = match program {
        Program::RawTracePoint(it) => {
            it.attach(tracepoint).and_then(|id| it.take_link(id)).map(FdLink::from)
        }
        // It was loaded for this tracepoint.
        Program::BtfTracePoint(it) => it.attach().and_then(|id| it.take_link(id)).map(FdLink::from),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    match attached {
        Ok(link) => Ok(Some(link)),
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
    let Some(link) = link_to(program(ebpf, name)?, tracepoint)? else { return Ok(false) };
    pin_link(link, pins, name, tracepoint)?;
    Ok(true)
}

/// Loads and attaches programs that do not belong to an engine. Returns their links, and the tracepoints that the
/// kernel lacks.
pub(super) fn attach_alone(
    ebpf: &mut Ebpf,
    programs: impl IntoIterator<Item = (&'static str, &'static str)>,
) -> Result<(Vec<FdLink>, Vec<&'static str>)> {
    let (mut links, mut missing) = (Vec::new(), Vec::new());
    for (name, tracepoint) in programs {
        let loaded = raw(ebpf, name)?;
        // One that has two tracepoints comes twice.
        if loaded.fd().is_err() {
            loaded.load().map_err(|error| refused(name, error))?;
        }
        match link_to(program(ebpf, name)?, tracepoint)? {
            Some(link) => links.push(link),
            None => missing.push(tracepoint),
        }
    }
    Ok((links, missing))
}
