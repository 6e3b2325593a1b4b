//! Page migration, seen at the kernel's function (fentry), where functions can be traced. Without, what is moved is
//! nobody's from then on (`docs/limitations.md`).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use aya::programs::FEntry;
use aya::programs::links::FdLink;
use aya::{Btf, Ebpf, EbpfLoader};
use memstock_common::layout::FolioLayout;

use super::link::pin_link;
use super::object::{MIGRATED, OBJECT, refused};
use super::pins::Pins;
use crate::host::pages::Layout;

const PROBE: &str = MIGRATED.0;
const FUNCTION: &str = MIGRATED.1;

/// Has the kernel take the program.
///
/// # Errors
/// It cannot trace functions, has no such one, or does not say how large a folio is.
pub(super) fn load(ebpf: &mut Ebpf, folio: FolioLayout) -> Result<()> {
    ensure!(folio != FolioLayout::UNKNOWN, "the kernel's BTF does not say how large a folio is");
    let btf = Btf::from_sys_fs().context("the kernel tells no types (CONFIG_DEBUG_INFO_BTF)")?;
    program(ebpf)?.load(FUNCTION, &btf).map_err(|error| refused(PROBE, error))
}

/// Attaches the program, if it is loaded, and pins the link; says whether it did. Of one that cannot be attached no
/// pin is left.
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

/// Whether an engine sees it.
///
/// # Errors
/// The pins cannot be read.
pub fn is_seen(pins: &Pins) -> Result<bool> {
    pins.has_program(PROBE)
}

/// Where the link of such an engine is pinned.
pub(super) fn link(pins: &Pins) -> PathBuf {
    pins.link(PROBE, FUNCTION)
}

/// Finds out whether it could be seen here; nothing stays.
///
/// # Errors
/// Why not.
pub fn try_it() -> Result<()> {
    let mut ebpf = EbpfLoader::new().load(OBJECT).context("cannot load the BPF object")?;
    load(&mut ebpf, Layout::read()?.folio)?;
    program(&mut ebpf)?.attach().map(drop).with_context(|| format!("no fentry at {FUNCTION}"))
}

fn program(ebpf: &mut Ebpf) -> Result<&mut FEntry> {
    let program = ebpf.program_mut(PROBE).with_context(|| format!("no program {PROBE}"))?;
    Ok(program.try_into()?)
}
