//! The programs that look again after a probe, on kernels that preempt probes ([`memstock_common::again`]). Elsewhere
//! they are not loaded.

use std::env;

use anyhow::Result;
use aya::Ebpf;
use aya::programs::ProgramFd;

use super::link::attach_to;
use super::object::AGAIN;
use super::pins::Pins;
use super::program;

/// If this variable is set, a new engine loads them on any kernel. For tests only.
const AS_IF_PREEMPTED: &str = "MEMSTOCK_AS_IF_PREEMPTED";
/// The first major version that preempts raw tracepoint programs (commit a46023d5616e). Only the version tells.
const PREEMPTS: u32 = 7;

/// Whether they are needed here.
pub(super) fn are_needed() -> bool {
    env::var_os(AS_IF_PREEMPTED).is_some()
        || major(rustix::system::uname().release().to_bytes()).is_some_and(|it| it >= PREEMPTS)
}

/// Whether to load a program: these only where they are needed, all others always.
pub(super) fn is_wanted(name: &str) -> bool {
    AGAIN.iter().all(|&(again, ..)| again != name) || are_needed()
}

/// The first number of a kernel's release.
fn major(release: &[u8]) -> Option<u32> {
    str::from_utf8(release).ok()?.split('.').next()?.parse().ok()
}

/// Attaches those that are loaded. Call it last: the kernel runs programs in the order in which they were attached.
pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins) -> Result<()> {
    for (again, _, tracepoint) in AGAIN {
        if ebpf.program(again).is_some_and(|program| program.fd().is_ok()) {
            attach_to(ebpf, pins, again, tracepoint)?;
        }
    }
    Ok(())
}

/// Those that an engine has, each with its tracepoint.
///
/// # Errors
/// The pins cannot be read.
pub(super) fn attached(pins: &Pins) -> Result<Vec<(&'static str, &'static str)>> {
    let is_there = |again| pins.has_program(again);
    let all = AGAIN.into_iter().map(|(again, _, tracepoint)| (again, tracepoint));
    all.map(|it| Ok(is_there(it.0)?.then_some(it))).filter_map(Result::transpose).collect()
}

/// The program that looks again after the one of this name, if the engine has it.
///
/// # Errors
/// The pins cannot be read.
pub(super) fn after(pins: &Pins, name: &str) -> Result<Option<ProgramFd>> {
    let again = AGAIN.into_iter().find(|&(_, first, _)| first == name).map(|(again, ..)| again);
    match again {
        Some(again) if pins.has_program(again)? => program::fd(pins, again).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn a_release_begins_with_its_major_number() {
        for (release, number) in
            [("7.3.4+deb13-cloud-amd64", Some(7)), ("10.0-rc1", Some(10)), ("x", None)]
        {
            assert_eq!(major(release.as_bytes()), number, "{release}");
        }
    }
}
