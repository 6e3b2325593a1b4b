//! What sees faults: attached where the kernel has tracepoints for them. Where it has none there is no fault program, an
//! engine charges by allocations alone, and how many faults there were is unknown (`docs/adr/0017-one-fault-path.md`).
//!
//! Which it is, the pin of the program says.

use std::env;
use std::fs;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::programs::links::FdLink;

use super::link::{link_to, pin_link};
use super::object::{FAULT_TRACEPOINTS, PROBE, program};
use super::pins::Pins;

/// If this variable is set, an engine that starts attaches as on a kernel without the tracepoints. For tests on
/// hosts that have them, and for nothing else.
const AS_IF_THERE_WERE_NONE: &str = "MEMSTOCK_NO_FAULT_TRACEPOINTS";

/// Attaches the program to both tracepoints and pins the links. Without the tracepoints no pin of the program is left.
pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins) -> Result<()> {
    let program = program(ebpf, PROBE)?;
    let mut links = Vec::new();
    for tracepoint in FAULT_TRACEPOINTS {
        let attached = match env::var_os(AS_IF_THERE_WERE_NONE) {
            None => link_to(program, tracepoint)?,
            Some(_) => None,
        };
        let Some(id) = attached else {
            log::info!("this kernel has no tracepoint {tracepoint}: faults are not counted");
            return fs::remove_file(pins.program(PROBE)).context("cannot remove a pin");
        };
        links.push((tracepoint, program.take_link(id)?));
    }
    for (tracepoint, link) in links {
        pin_link(FdLink::from(link), pins, PROBE, tracepoint)?;
    }
    Ok(())
}

/// Whether a pinned engine sees them.
///
/// # Errors
/// The pins cannot be read.
pub(super) fn are_seen(pins: &Pins) -> Result<bool> {
    pins.has_program(PROBE)
}
