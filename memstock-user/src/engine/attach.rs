//! Attaches the loaded programs to their tracepoints and pins the links. `faults` attaches the probe of page faults. To
//! find out which tracepoints exist, loads one program itself.

use anyhow::{Context as _, Result};
use aya::{Ebpf, EbpfLoader};

use super::again;
use super::faults;
use super::link::{attach_to, link_to};
use super::migrate;
use super::object::{
    ATTACHMENTS, Attachment, FAULT_TRACEPOINTS, MOVED_UNSEEN, OBJECT, PROBE, Without, program, raw,
    refused,
};
use super::pins::Pins;
use crate::exit::Failure;

/// Attaches all of them and pins the links.
pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins) -> Result<()> {
    let sees_migration = migrate::attach(ebpf, pins)?;
    for Attachment { program, tracepoint, without } in ATTACHMENTS {
        match program {
            PROBE if tracepoint == FAULT_TRACEPOINTS[0] => faults::attach(ebpf, pins)?,
            PROBE => {}
            MOVED_UNSEEN if sees_migration => {}
            _ if attach_to(ebpf, pins, program, tracepoint)? => {}
            _ => match without {
                Some(Without { lost, .. }) => {
                    log::info!("this kernel has no tracepoint {tracepoint}: {lost}");
                }
                None => {
                    return Err(Failure::Host.error(format!(
                        "this kernel has no tracepoint {tracepoint}: memstock needs CONFIG_TRACEPOINTS and \
                         CONFIG_CGROUPS (\"memstock doctor\" has more)"
                    )));
                }
            },
        }
    }
    again::attach(ebpf, pins)
}

/// A program that reads no argument, so that it fits any tracepoint, and only writes to a map of its own.
const PROBING: &str = "bump_generation";

/// Loads that program alone, to be attached to tracepoints that may not exist.
///
/// # Errors
/// The kernel refuses it.
pub fn probing() -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().load(OBJECT).context("cannot load the BPF object")?;
    raw(&mut ebpf, PROBING)?.load().map_err(|error| refused(PROBING, error))?;
    Ok(ebpf)
}

/// Whether the kernel has a tracepoint: attaches [`probing`] to it and detaches it again.
///
/// # Errors
/// The kernel refuses for another reason than a missing tracepoint.
pub fn has_tracepoint(probing: &mut Ebpf, tracepoint: &str) -> Result<bool> {
    Ok(link_to(program(probing, PROBING)?, tracepoint)?.is_some())
}
