//! Loads the kernel half: loads the programs, sets up the tail call, pins. `attach` attaches it.

use std::io;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder, available_parallelism};

use anyhow::{Context as _, Result};
use aya::maps::{Array, ProgramArray};
use aya::programs::links::FdLink;
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use memstock_common::adopt::WINDOW_PAGES;
use memstock_common::collapse::COLLAPSE_ORDER;
use memstock_common::layout::{FolioLayout, MemoryOwner};
use memstock_common::page::CHUNK_PAGES;
use memstock_common::{DEFAULT_BATCH, DEFAULT_MAX_CGROUPS, EngineInfo, LAYOUT};

use super::Engine;
use super::again;
use super::attach::attach;
use super::learn::{Asker, learn_by};
use super::link::link_to;
use super::migrate;
use super::object::{
    MISS, OBJECT, RING_BYTES, is_engines, is_pinned_map, is_pinned_program, kernel_btf, program,
    refused, tracepoint_of,
};
use super::pins::{Pins, undo_on_error};
use crate::exit::{ExitError, Failure};
use crate::host::pages::{Layout, huge_page_pages};

/// What is batched on its way to the shared counters. Anything but `Everything` is for benchmarks, which measure what
/// batching is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalescing {
    /// Every page is charged and uncharged individually; `batch` is 1.
    Nothing,
    /// Only uncharges, in batches of this many pages; nothing is stocked and `batch` is 1.
    Uncharges(u32),
    /// Charges and uncharges.
    Everything,
}

/// What the kernel half is loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Pages charged at once on a miss, `1..=MAX_BATCH`.
    pub batch: u32,
    /// Stock slots per CPU, `1..=MAX_SLOTS`.
    pub slots: u32,
    /// Cgroups that can be tracked at once, `1..=MAX_CGROUPS`.
    pub max_cgroups: u32,
    /// Whether memory+swap is charged as well.
    pub memsw: bool,
    /// Whether the programs log what they do (slow).
    pub trace: bool,
    /// What is batched.
    pub coalescing: Coalescing,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch: DEFAULT_BATCH,
            slots: 1,
            max_cgroups: DEFAULT_MAX_CGROUPS,
            memsw: false,
            trace: false,
            coalescing: Coalescing::Everything,
        }
    }
}

/// A loaded and pinned engine whose probes are not attached yet.
pub struct Loaded {
    ebpf: Ebpf,
    pins: Pins,
    /// Used to register cgroups before the first fault.
    pub engine: Engine,
    /// The programs' log, if they were asked for one.
    pub log: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// Loads the object with `settings` and returns it with every program in the kernel. Its maps have the size that this
/// host needs, or the smallest if it `is_tried` only.
///
/// # Errors
/// The verifier or the kernel refuses; the message quotes it.
pub fn object(settings: Settings, is_tried: bool) -> Result<Ebpf> {
    let (mut ebpf, folio, btf) = typed_maps(settings, is_tried)?;
    for (name, loaded) in load_programs(&mut ebpf, &btf) {
        loaded.map_err(|error| refused(&name, error))?;
    }
    if let Err(error) = migrate::load(&mut ebpf, folio, &btf) {
        log::debug!("page migration is not seen: {error:#}");
    }
    let charge = program(&mut ebpf, MISS)?.fd()?.try_clone()?;
    let tail_calls = ebpf.map_mut("TAIL_CALLS").context("no map TAIL_CALLS in the object")?;
    ProgramArray::try_from(tail_calls)?
        .set(0, &charge, 0)
        .context("cannot enter charge in TAIL_CALLS")?;
    Ok(ebpf)
}

/// Whether the kernel accepts each program of an engine, and why not. None is attached, the maps are as small as
/// possible, and nothing stays behind.
///
/// # Errors
/// The programs cannot be tried: memstock does not know this kernel's memory, or a map cannot be created.
pub fn verdicts() -> Result<Vec<(String, Result<(), ProgramError>)>> {
    let (mut ebpf, _, btf) = typed_maps(Settings::default(), true)?;
    Ok(load_programs(&mut ebpf, &btf))
}

/// Loads the programs of an engine, on several threads. The verifier takes most of the time of a start, and runs in
/// parallel (`bpf_check` in kernel/bpf/verifier.c takes its lock for unprivileged users only).
fn load_programs(ebpf: &mut Ebpf, btf: &Btf) -> Vec<(String, Result<(), ProgramError>)> {
    let engines: Vec<_> = ebpf
        .programs_mut()
        .filter(|&(name, _)| is_engines(name) && again::is_wanted(name))
        .collect();
    let others = available_parallelism().map_or(1, NonZero::get).min(engines.len()).max(1) - 1;
    let queue = Mutex::new(engines.into_iter());
    // Not inlined into the loop below, which would then hold the lock while it loads.
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let load = |name: &str, program: &mut Program| match program {
        Program::RawTracePoint(it) => it.load(),
        Program::BtfTracePoint(it) => it.load(tracepoint_of(name).unwrap_or_default(), btf),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    let work = || {
        let mut loaded = Vec::new();
        while let Some((name, program)) = next() {
            loaded.push((name.to_owned(), load(name, program)));
        }
        loaded
    };
    thread::scope(|scope| {
        // If no thread can be created, this one does all the work.
        let spawn = |_| Builder::new().spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (0..others).filter_map(spawn).collect();
        let mut loaded = work();
        for thread in threads {
            loaded.extend(joined(thread.join()));
        }
        loaded
    })
}

/// A panic of another thread goes on in this one.
fn joined<T>(result: thread::Result<T>) -> T {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Loads the object with its maps, but no program. Also returns what it has learnt of folios, and the kernel's types,
/// which take a while to read.
fn typed_maps(settings: Settings, is_tried: bool) -> Result<(Ebpf, FolioLayout, Btf)> {
    thread::scope(|scope| {
        // If no thread can be created, this one reads them afterwards.
        let reading = Builder::new().spawn_scoped(scope, kernel_btf).ok();
        let made = maps(settings, is_tried);
        let btf = match reading {
            Some(thread) => joined(thread.join()),
            None => kernel_btf(),
        };
        let (ebpf, folio) = made?;
        Ok((ebpf, folio, btf?))
    })
}

fn maps(settings: Settings, is_tried: bool) -> Result<(Ebpf, FolioLayout)> {
    let Settings { batch, slots, max_cgroups, memsw, trace, coalescing } = settings;
    let (batch, stock_pages, uncharge_batch) = match coalescing {
        Coalescing::Nothing => (1, 0, 1),
        Coalescing::Uncharges(at_once) => (1, 0, at_once),
        Coalescing::Everything => (batch, batch, batch),
    };
    let (mut loader, asker) = (EbpfLoader::new(), Asker::new()?);
    let pages = learn_by(&mut loader, &asker)?;
    let layout = pages.layout;
    let Layout { page_struct_size, gfp, memory_owner, page, folio, .. } = layout;
    let tracks_collapses = memory_owner != MemoryOwner::UNKNOWN
        && huge_page_pages().is_some_and(|pages| pages == 1 << COLLAPSE_ORDER);
    let shift = if page_struct_size.is_power_of_two() {
        page_struct_size.trailing_zeros()
    } else {
        u64::BITS
    };
    let chunks = pages.end_pfn.div_ceil(CHUNK_PAGES.into()).max(1);
    let chunks = u32::try_from(chunks).context("more page frames than the owner map can have")?;
    let log_level: u8 = if trace { aya_log::Level::Debug as u8 } else { 0 };
    // Trying it needs no maps.
    let (chunks, cgroups, ring) =
        if is_tried { (1, 1, 4096) } else { (chunks, max_cgroups, RING_BYTES) };
    let mut ebpf = loader
        .override_global("BATCH", &batch, true)
        .override_global("STOCK_PAGES", &stock_pages, true)
        .override_global("UNCHARGE_BATCH", &uncharge_batch, true)
        .override_global("SLOTS", &slots, true)
        .override_global("MEMSW", &u32::from(memsw), true)
        .override_global("PAGE_BASE", &pages.base, true)
        .override_global("PAGE_STRUCT_SIZE", &page_struct_size, true)
        .override_global("PAGE_STRUCT_SHIFT", &shift, true)
        .override_global("GFP_FLAGS", &gfp, true)
        .override_global("CGROUP_KN", &layout.cgroup_kn, true)
        .override_global("KERNFS_ID", &layout.kernfs_id, true)
        .override_global("CGROUP_ROOT", &layout.cgroup_root, true)
        .override_global("HIERARCHY_ID", &layout.hierarchy_id, true)
        .override_global("PAGE_LAYOUT", &page, true)
        .override_global("FOLIO", &folio, true)
        .override_global("MEMORY_OWNER", &memory_owner, true)
        .override_global("TRACKS_COLLAPSES", &u32::from(tracks_collapses), true)
        .override_global("IS_PREEMPTED", &u32::from(again::are_needed()), true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries("STOCK", slots)
        .map_max_entries("COUNTERS", cgroups)
        .map_max_entries("CGROUPS", cgroups)
        .map_max_entries("CGROUP_CPU", cgroups)
        .map_max_entries("OWNERS", chunks)
        .map_max_entries("FILE_PAGES", if is_tried { 1 } else { WINDOW_PAGES })
        .map_max_entries("EVENTS", ring)
        .load(OBJECT)
        .map_err(|error| not_loaded(error.into()))?;
    let info = EngineInfo {
        layout: LAYOUT,
        batch,
        slots,
        memsw: u32::from(memsw),
        page_base: pages.base,
        page_struct_size,
    };
    let engine = ebpf.map_mut("ENGINE").context("no map ENGINE in the object")?;
    Array::try_from(engine)?.set(0, info, 0).context("cannot write map ENGINE")?;
    Ok((ebpf, folio))
}

fn not_loaded(error: anyhow::Error) -> anyhow::Error {
    let io = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().map(io::Error::kind)
    };
    if error.chain().any(|cause| io(cause) == Some(io::ErrorKind::OutOfMemory)) {
        // BPF maps are charged to the memory cgroup of who creates them.
        let message = "cannot create the BPF maps: raise the memory limit of memstock's own cgroup, or choose a smaller \
                       --max-cgroups or --slots";
        return error.context(ExitError { kind: Failure::Host, message: message.into() });
    }
    error.context("cannot load the BPF object")
}

/// Loads the kernel half and pins it. On failure nothing stays behind.
///
/// # Errors
/// The kernel refuses, or the pins exist already.
pub fn load(pins: &Pins, settings: Settings) -> Result<Loaded> {
    let mut ebpf = object(settings, false)?;
    pins.create()?;
    let unfinished = pins.unfinished();
    let pinned = pin(&mut ebpf, &unfinished).and_then(|()| Engine::open_with_control(&unfinished));
    let engine = undo_on_error(pins, pinned)?;
    let log = settings
        .trace
        .then(|| EbpfLogger::init(&mut ebpf).context("cannot read the programs' log"))
        .transpose();
    let log = undo_on_error(pins, log)?;
    Ok(Loaded { ebpf, pins: pins.clone(), engine, log })
}

impl Loaded {
    /// One of the programs.
    ///
    /// # Errors
    /// The object has no such program.
    pub fn program(&mut self, name: &str) -> Result<&mut Program> {
        program(&mut self.ebpf, name)
    }

    /// Attaches one of the programs, and pins nothing: dropping the link detaches it.
    ///
    /// # Errors
    /// The object has no such program, the kernel lacks the tracepoint, or refuses.
    pub fn link(&mut self, name: &str, tracepoint: &str) -> Result<FdLink> {
        link_to(program(&mut self.ebpf, name)?, tracepoint)?
            .with_context(|| format!("this kernel has no tracepoint {tracepoint}"))
    }

    /// Attaches the probes, pins the links and renames the pins: from now on pages are charged, whether this process
    /// lives or not. On failure nothing stays behind.
    ///
    /// # Errors
    /// The kernel lacks a required tracepoint, or refuses.
    pub fn attach(mut self) -> Result<(Engine, Option<EbpfLogger<&'static dyn log::Log>>)> {
        // Opened again: programs that could not be attached are no longer pinned, and we must not keep them open.
        let opened = attach(&mut self.ebpf, &self.pins.unfinished())
            .and_then(|()| self.pins.finish())
            .and_then(|()| Engine::open_with_control(&self.pins));
        Ok((undo_on_error(&self.pins, opened)?, self.log))
    }
}

fn pin(ebpf: &mut Ebpf, pins: &Pins) -> Result<()> {
    for (name, map) in ebpf.maps() {
        if is_pinned_map(name) {
            map.pin(pins.map(name)).with_context(|| format!("cannot pin the map {name}"))?;
        }
    }
    for (name, program) in ebpf.programs_mut() {
        if is_pinned_program(name) && program.fd().is_ok() {
            program
                .pin(pins.program(name))
                .with_context(|| format!("cannot pin the program {name}"))?;
        }
    }
    Ok(())
}
