//! Owns the judgement of what is pinned when a daemon starts: nothing, a whole engine of ours, or what
//! cannot be used. Clears only what was never attached, never finished, or told to end.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapInfo, MapType};
use aya::programs::ProgramInfo;
use aya::programs::links::{FdLink, PinnedLink};
use aya_obj::Object;
use aya_obj::generated::bpf_prog_type::{BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_PROG_TYPE_TRACING};
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

/// The engine that a daemon that died left charging, if there is one. What it left of a start or of an end
/// is cleared away. To be called with the lock held.
///
/// # Errors
/// [`Failure::Running`] for an engine that cannot be taken over: of another version, or with pins missing.
pub fn adopt(pins: &Pins) -> Result<Option<Engine>> {
    refuse_other_versions(pins)?;
    if !pins.exist() {
        // What is unfinished has no figures that anybody has seen, though it may be attached.
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
            log::info!("clearing pins that nothing is attached by: {error:#}");
            pins.remove()?;
            Ok(None)
        }
    }
}

/// Refuses to go on beside an engine of another version, which would charge each page once more.
pub(super) fn refuse_other_versions(pins: &Pins) -> Result<()> {
    match pins.of_other_versions()?.first() {
        None => Ok(()),
        Some(other) => Err(Failure::Running.error(format!(
            "an engine of another version is pinned at {}: end it with \"memstock stop\"",
            other.root().display()
        ))),
    }
}

/// Opens an engine after a look at each of its pins.
fn whole(pins: &Pins) -> Result<Engine> {
    let object = Object::parse(OBJECT).context("cannot read the BPF object")?;
    let engine = Engine::open(pins)?;
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
    let pinned = object.programs.keys().filter(|name| is_pinned_program(name) && is_there(name));
    for name in pinned {
        ids.insert(name.as_str(), program_id(pins, name)?);
    }
    for Attachment { program, tracepoint, without } in ATTACHMENTS {
        let pin = pins.link(program, tracepoint);
        // Of faults, what is there is known already.
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
        // By how much memory there was when it was made.
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

fn program_id(pins: &Pins, name: &str) -> Result<u32> {
    let info =
        ProgramInfo::from_pin(pins.program(name)).with_context(|| format!("no program {name}"))?;
    let kind = match name {
        name if name == MIGRATED.0 => BPF_PROG_TYPE_TRACING,
        _ => BPF_PROG_TYPE_RAW_TRACEPOINT,
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

/// Whether anything is pinned that charges by itself. What cannot be read may be.
fn is_attached(pins: &Pins) -> bool {
    match fs::read_dir(pins.links()) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}
