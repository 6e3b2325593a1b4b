//! The fault program: attached where the kernel has page-fault tracepoints. Without them there is no fault program, an
//! engine charges at allocations alone, and the number of faults is unknown (`docs/adr/0017-one-fault-path.md`).
//!
//! Whether an engine has it shows in the pin of the program.

use std::env;
use std::fs;

use anyhow::{Context as _, Result};
use aya::Ebpf;

use super::link::{link_to, pin_link};
use super::object::{FAULT_TRACEPOINTS, PROBE, program};
use super::pins::Pins;

/// If this variable is set, a new engine behaves as on a kernel without the tracepoints. For tests on hosts that have
/// them only.
const AS_IF_THERE_WERE_NONE: &str = "MEMSTOCK_NO_FAULT_TRACEPOINTS";

/// Attaches the program to both tracepoints and pins the links. If the tracepoints are missing, removes the program's
/// pin.
pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins) -> Result<()> {
    let program = program(ebpf, PROBE)?;
    let mut links = Vec::new();
    for tracepoint in FAULT_TRACEPOINTS {
        let attached = match env::var_os(AS_IF_THERE_WERE_NONE) {
            None => link_to(program, tracepoint)?,
            Some(_) => None,
        };
        let Some(link) = attached else {
            log::info!("this kernel has no tracepoint {tracepoint}: faults are not counted");
            return fs::remove_file(pins.program(PROBE)).context("cannot remove a pin");
        };
        links.push((tracepoint, link));
    }
    for (tracepoint, link) in links {
        pin_link(link, pins, PROBE, tracepoint)?;
    }
    Ok(())
}

/// Whether a pinned engine counts faults.
///
/// # Errors
/// The pins cannot be read.
pub(super) fn are_seen(pins: &Pins) -> Result<bool> {
    pins.has_program(PROBE)
}
