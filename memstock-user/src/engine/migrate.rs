//! Page migration, observed at the kernel's function (fentry), where functions can be traced. Elsewhere migrated pages
//! lose their owner (`docs/limitations.md`).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use aya::programs::FEntry;
use aya::programs::links::FdLink;
use aya::{Btf, Ebpf, EbpfLoader};
use memstock_common::layout::FolioLayout;

use super::link::pin_link;
use super::object::{MIGRATED, OBJECT, kernel_btf, refused};
use super::pins::Pins;
use crate::host::pages::Layout;

const PROBE: &str = MIGRATED.0;
const FUNCTION: &str = MIGRATED.1;

/// Loads the program.
///
/// # Errors
/// The kernel cannot trace functions, lacks this one, or does not say how large a folio is.
pub(super) fn load(ebpf: &mut Ebpf, folio: FolioLayout, btf: &Btf) -> Result<()> {
    ensure!(folio != FolioLayout::UNKNOWN, "the kernel's BTF does not say how large a folio is");
    program(ebpf)?.load(FUNCTION, btf).map_err(|error| refused(PROBE, error))
}

/// Attaches the program, if it is loaded, and pins the link; returns whether it did. If it cannot be attached, removes
/// its pin.
pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins) -> Result<bool> {
    let program = program(ebpf)?;
    if program.fd().is_err() {
        return Ok(false);
    }
    match program.attach().with_context(|| format!("no fentry at {FUNCTION}")) {
        Ok(id) => {
            pin_link(FdLink::from(program.take_link(id)?), pins, PROBE, FUNCTION)?;
            Ok(true)
        }
        Err(error) => {
            log::debug!("page migration is not seen: {error:#}");
            fs::remove_file(pins.program(PROBE)).context("cannot remove a pin")?;
            Ok(false)
        }
    }
}

/// Whether an engine follows migrations.
///
/// # Errors
/// The pins cannot be read.
pub fn is_seen(pins: &Pins) -> Result<bool> {
    pins.has_program(PROBE)
}

/// The pin of that link.
pub(super) fn link(pins: &Pins) -> PathBuf {
    pins.link(PROBE, FUNCTION)
}

/// Checks whether this host can do it; nothing stays behind.
///
/// # Errors
/// Why not.
pub fn try_it() -> Result<()> {
    let mut ebpf = EbpfLoader::new().load(OBJECT).context("cannot load the BPF object")?;
    load(&mut ebpf, Layout::read()?.folio, &kernel_btf()?)?;
    program(&mut ebpf)?.attach().map(drop).with_context(|| format!("no fentry at {FUNCTION}"))
}

fn program(ebpf: &mut Ebpf) -> Result<&mut FEntry> {
    let program = ebpf.program_mut(PROBE).with_context(|| format!("no program {PROBE}"))?;
    Ok(program.try_into()?)
}
