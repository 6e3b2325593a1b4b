//! Decides what to do with the pins found when a daemon starts: there are none, a whole engine of ours, or something
//! unusable. Clears only what was never attached, never finished, or told to end.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapInfo, MapType};
use aya::programs::ProgramInfo;
use aya::programs::links::{FdLink, PinnedLink};
use aya_obj::generated::bpf_prog_type::{BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_PROG_TYPE_TRACING};
use aya_obj::{Object, ProgramSection};
use memstock_common::adopt::WINDOW_PAGES;

use super::Engine;
use super::again;
use super::migrate;
use super::object::{
    AGAIN, ATTACHMENTS, Attachment, MIGRATED, OBJECT, PROBE, RING_BYTES, is_pinned_map,
    is_pinned_program,
};
use super::pins::Pins;
use crate::exit::Failure;

/// Characters of a name that the kernel keeps (`BPF_OBJ_NAME_LEN`).
const NAME_LEN: usize = 15;

/// The engine that a dead daemon left running, if there is one. Clears what it left of an unfinished start or end. Call
/// it with the lock held.
///
/// # Errors
/// [`Failure::Running`] for an engine that cannot be adopted: of another version, or with pins missing.
pub fn adopt(pins: &Pins) -> Result<Option<Engine>> {
    refuse_other_versions(pins)?;
    if !pins.exist() {
        // Nobody has seen the figures of an unfinished engine, though it may be attached.
        pins.remove()?;
        return Ok(None);
    }
    match whole(pins) {
        Ok(engine) => Ok(Some(engine)),
        Err(error) if is_attached(pins) => Err(Failure::Running.error(format!(
            "the engine pinned at {} cannot be adopted ({error:#}): end it with \"memstock stop\"",
            pins.root().display()
        ))),
        Err(error) => {
            log::info!("clearing the pins of an engine that is not attached: {error:#}");
            pins.remove()?;
            Ok(None)
        }
    }
}

/// Refuses to run beside an engine of another version, which would charge each page a second time.
pub(super) fn refuse_other_versions(pins: &Pins) -> Result<()> {
    match pins.of_other_versions()?.first() {
        None => Ok(()),
        Some(other) => Err(Failure::Running.error(format!(
            "an engine of another version is pinned at {}: end it with \"memstock stop\"",
            other.root().display()
        ))),
    }
}

/// Opens an engine and checks each of its pins.
fn whole(pins: &Pins) -> Result<Engine> {
    let object = Object::parse(OBJECT).context("cannot read the BPF object")?;
    let engine = Engine::open_with_control(pins)?;
    for (name, map) in object.maps.iter().filter(|(name, _)| is_pinned_map(name)) {
        check_map(pins, name, map, &engine)?;
    }
    let mut ids = HashMap::new();
    let sees_migration = migrate::is_seen(pins)?;
    let sees_faults = engine.sees_faults();
    let again = again::attached(pins)?;
    let is_there = |name: &str| match name {
        PROBE => sees_faults,
        name if name == MIGRATED.0 => sees_migration,
        name if AGAIN.iter().any(|it| it.0 == name) => again.iter().any(|it| it.0 == name),
        _ => true,
    };
    let is_pinned = |name: &str| is_pinned_program(name) && is_there(name);
    for (name, program) in object.programs.iter().filter(|(name, _)| is_pinned(name)) {
        ids.insert(name.as_str(), program_id(pins, name, &program.section)?);
    }
    for Attachment { program, tracepoint, without } in ATTACHMENTS {
        let pin = pins.link(program, tracepoint);
        // For faults it is already known which are there.
        let may_be_missing = without.is_some() && (program != PROBE || !sees_faults);
        if !may_be_missing || pin.exists() {
            check_link(&pin, tracepoint, ids.get(program))?;
        }
    }
    for (program, tracepoint) in again {
        check_link(&pins.link(program, tracepoint), tracepoint, ids.get(program))?;
    }
    if sees_migration {
        check_link(&migrate::link(pins), MIGRATED.1, ids.get(MIGRATED.0))?;
    }
    Ok(engine)
}

fn check_link(pin: &Path, to: &str, program: Option<&u32>) -> Result<()> {
    let cannot = || format!("no link to {to}");
    let pinned = PinnedLink::from_pin(pin).with_context(cannot)?;
    let info = FdLink::from(pinned).info().with_context(cannot)?;
    ensure!(program == Some(&info.program_id()), "{to} is linked to another program");
    Ok(())
}

fn check_map(pins: &Pins, name: &str, map: &aya_obj::Map, engine: &Engine) -> Result<()> {
    let info = MapInfo::from_pin(pins.map(name)).with_context(|| format!("no map {name}"))?;
    let len = match name {
        "STOCK" => engine.info().slots,
        "COUNTERS" | "CGROUPS" | "CGROUP_CPU" => engine.max_cgroups(),
        "EVENTS" => RING_BYTES,
        "FILE_PAGES" => WINDOW_PAGES,
        // Depends on the memory that the host had when it was created.
        "OWNERS" => info.max_entries(),
        _ => map.max_entries(),
    };
    let is_of_type = info.map_type().is_ok_and(|kind: MapType| kind as u32 == map.map_type());
    ensure!(
        is_of_type
            && info.name() == kept(name)
            && (info.key_size(), info.value_size(), info.max_entries(), info.map_flags())
                == (map.key_size(), map.value_size(), len, map.map_flags()),
        "the map {name} is another one"
    );
    Ok(())
}

fn program_id(pins: &Pins, name: &str, section: &ProgramSection) -> Result<u32> {
    let info =
        ProgramInfo::from_pin(pins.program(name)).with_context(|| format!("no program {name}"))?;
    let kind = match section {
        ProgramSection::RawTracePoint => BPF_PROG_TYPE_RAW_TRACEPOINT,
        _ => BPF_PROG_TYPE_TRACING,
    };
    ensure!(
        info.program_type() == kind && info.name() == kept(name),
        "the program {name} is another one"
    );
    Ok(info.id())
}

fn kept(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(NAME_LEN)]
}

/// Whether a link is pinned, so that the engine charges by itself. If the folder cannot be read, assumes so.
fn is_attached(pins: &Pins) -> bool {
    match fs::read_dir(pins.links()) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}
