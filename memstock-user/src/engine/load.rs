//! Puts the kernel half into the kernel: loads, wires the tail call, pins. What runs it is attached by `attach`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::maps::{Array, ProgramArray};
use aya::programs::perf_event::PerfEventLink;
use aya::programs::{Program, ProgramError, RawTracePoint};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use aya_log::EbpfLogger;
use memstock_common::adopt::WINDOW_PAGES;
use memstock_common::collapse::COLLAPSE_ORDER;
use memstock_common::layout::MemoryOwner;
use memstock_common::page::CHUNK_PAGES;
use memstock_common::{DEFAULT_BATCH, DEFAULT_MAX_CGROUPS, EngineInfo, LAYOUT};

use super::Engine;
use super::attach::attach;
use super::faults::{self, EVENT_PROBE, Source};
use super::kernel_stock;
use super::learn::learn;
use super::migrate;
use super::pins::{Pins, undo_on_error};
use super::program::RunStats;
use crate::pages::{Layout, huge_page_pages};

/// The BPF object, built by this crate's build script.
pub(crate) static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memstock-probes"));

/// The compiler that made it.
pub const COMPILER: &str = env!("MEMSTOCK_BPF_RUSTC");

/// The probe of the page-fault tracepoints; [`EVENT_PROBE`] where there are none.
pub const PROBE: &str = "fault";
/// Programs and the tracepoints they are attached to, in this order: what a CPU remembers of a task
/// must be made stale from before the first fault on, and what is charged be uncharged.
pub const ATTACHMENTS: [(&str, &str); 11] = [
    // Before anything can be stocked.
    ("cpu_hotplug", "cpuhp_exit"),
    ("regroup", "task_newtask"),
    ("regroup", "cgroup_attach_task"),
    ("cgroup_made", "cgroup_mkdir"),
    ("cgroup_removed", "cgroup_rmdir"),
    ("page_free", "mm_page_free"),
    ("page_drain", "mm_page_pcpu_drain"),
    // What is page cache must be known from the first page that is charged on.
    ("file_added", "mm_filemap_add_to_page_cache"),
    ("page_alloc", "mm_page_alloc"),
    (PROBE, FAULT_TRACEPOINTS[0]),
    (PROBE, FAULT_TRACEPOINTS[1]),
];
/// Those of faults.
pub const FAULT_TRACEPOINTS: [&str; 2] = ["page_fault_user", "page_fault_kernel"];
/// The same where the kernel has the tracepoint: without them, less is drained than could be.
pub const OPTIONAL: [(&str, &str); 3] = [
    ("reclaim_began", "mm_vmscan_direct_reclaim_begin"),
    // With CONFIG_MEMCG only.
    ("reclaim_began", "mm_vmscan_memcg_reclaim_begin"),
    ("reclaim_began", "mm_vmscan_kswapd_wake"),
];

/// Those of collapses, of which the kernel may have none or one: without them, the huge pages are nobody's.
pub const COLLAPSES: [(&str, &str); 2] = [
    // With CONFIG_TRANSPARENT_HUGEPAGE only.
    ("collapsed", "mm_collapse_huge_page"),
    ("collapsed", "mm_khugepaged_collapse_file"),
];

/// What counts the pages that are moved, where it cannot be seen which.
pub const MOVED_UNSEEN: (&str, &str) = ("moved_unseen", "mm_migrate_pages");

/// The tracepoints that every page passes.
pub const HOT_TRACEPOINTS: [&str; 3] = ["page_fault_user", "mm_page_alloc", "mm_page_free"];

/// The programs that are attached, by whatever faults are seen; each once.
pub fn probes() -> impl Iterator<Item = &'static str> {
    let attached = ATTACHMENTS.iter().chain(&OPTIONAL).chain(&COLLAPSES).chain([&MOVED_UNSEEN]);
    let names = attached.map(|&(name, _)| name).chain([EVENT_PROBE]);
    names.collect::<BTreeSet<_>>().into_iter()
}

/// The program that `fault` tail-calls.
const MISS: &str = "charge";
/// The program that does nothing, for the benches; not pinned.
pub const YARDSTICK: &str = "empty";
/// The program that [`learn`](super::learn) loads by itself.
const LEARN: &str = "learn";

/// Bytes of the event ring: some 3,000 events.
pub(super) const RING_BYTES: u32 = 256 * 1024;

/// What is coalesced on its way to the shared counters. Less than everything is for benches, which
/// measure what coalescing is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalescing {
    /// Every page is charged and uncharged there by itself; `batch` is 1.
    Nothing,
    /// Uncharges are, in batches of so many pages; nothing is stocked and `batch` is 1.
    Uncharges(u32),
    /// Charges and uncharges.
    Everything,
}

/// What the kernel half is loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Pages charged at once on a miss, `1..=MAX_BATCH`.
    pub batch: u32,
    /// Stock slots per CPU, a power of two, `1..=MAX_SLOTS`.
    pub slots: u32,
    /// Cgroups that can be tracked at once, `1..=MAX_CGROUPS`.
    pub max_cgroups: u32,
    /// Whether memory+swap is charged as well.
    pub memsw: bool,
    /// Whether the programs log what they do (slow).
    pub trace: bool,
    /// What is coalesced.
    pub coalescing: Coalescing,
    /// By what faults are seen; none for what the kernel has.
    pub faults: Option<Source>,
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
            faults: None,
        }
    }
}

/// A loaded and pinned engine whose probe is not attached yet.
pub struct Loaded {
    ebpf: Ebpf,
    pins: Pins,
    faults: Option<Source>,
    /// To register cgroups with, before the first fault.
    pub engine: Engine,
    /// What the programs log, when they were asked to.
    pub log: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// Loads the object with `settings` and returns it with every program in the kernel. Its maps have room for this host, or
/// for nothing if it `is_tried` only.
///
/// # Errors
/// The verifier or the kernel refuses; the message carries its words.
pub fn object(settings: Settings, is_tried: bool) -> Result<Ebpf> {
    let Settings { batch, slots, max_cgroups, memsw, trace, coalescing, faults: _ } = settings;
    let (batch, stock_pages, uncharge_batch) = match coalescing {
        Coalescing::Nothing => (1, 0, 1),
        Coalescing::Uncharges(at_once) => (1, 0, at_once),
        Coalescing::Everything => (batch, batch, batch),
    };
    let pages = learn()?;
    let layout = pages.layout;
    let Layout { page_struct_size, gfp, memory_owner, page, folio, .. } = layout;
    let tells_collapses = memory_owner != MemoryOwner::UNKNOWN
        && huge_page_pages().is_some_and(|pages| pages == 1 << COLLAPSE_ORDER);
    let shift = if page_struct_size.is_power_of_two() {
        page_struct_size.trailing_zeros()
    } else {
        u64::BITS
    };
    let chunks = pages.end_pfn.div_ceil(CHUNK_PAGES.into()).max(1);
    let chunks = u32::try_from(chunks).context("more page frames than the owner map can have")?;
    let log_level: u8 = if trace { aya_log::Level::Debug as u8 } else { 0 };
    // Whoever only tries it needs no map.
    let (chunks, cgroups, ring) =
        if is_tried { (1, 1, 4096) } else { (chunks, max_cgroups, RING_BYTES) };
    let mut ebpf = EbpfLoader::new()
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
        .override_global("TELLS_COLLAPSES", &u32::from(tells_collapses), true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries("STOCK", slots)
        .map_max_entries("COUNTERS", cgroups)
        .map_max_entries("CGROUPS", cgroups)
        .map_max_entries("CGROUP_CPU", cgroups)
        .map_max_entries("OWNERS", chunks)
        .map_max_entries("FILE_PAGES", if is_tried { 1 } else { WINDOW_PAGES })
        .map_max_entries("EVENTS", ring)
        .load(OBJECT)
        .context("cannot load the BPF object")?;
    for (name, program) in ebpf.programs_mut().filter(|&(name, _)| is_engines(name)) {
        let loaded = match program {
            Program::PerfEvent(program) => program.load(),
            program => <&mut RawTracePoint>::try_from(program).and_then(RawTracePoint::load),
        };
        loaded.map_err(|error| refused(name, error))?;
    }
    if let Err(error) = migrate::load(&mut ebpf, folio) {
        log::debug!("page migration is not seen: {error:#}");
    }
    let charge = program(&mut ebpf, MISS)?.fd()?.try_clone()?;
    let tail_calls = ebpf.map_mut("TAIL_CALLS").context("no map TAIL_CALLS in the object")?;
    ProgramArray::try_from(tail_calls)?
        .set(0, &charge, 0)
        .context("cannot enter charge in TAIL_CALLS")?;
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
    Ok(ebpf)
}

/// Loads the kernel half and pins it. On failure nothing stays behind.
///
/// # Errors
/// The kernel refuses, or the pins exist already.
pub fn load(pins: &Pins, settings: Settings) -> Result<Loaded> {
    let mut ebpf = object(settings, false)?;
    pins.create()?;
    let unfinished = pins.unfinished();
    let pinned = pin(&mut ebpf, &unfinished).and_then(|()| Engine::open(&unfinished));
    let engine = undo_on_error(pins, pinned)?;
    let log = settings
        .trace
        .then(|| EbpfLogger::init(&mut ebpf).context("cannot read the programs' log"))
        .transpose();
    let log = undo_on_error(pins, log)?;
    Ok(Loaded { ebpf, pins: pins.clone(), faults: settings.faults, engine, log })
}

impl Loaded {
    /// One of the programs, attached to nothing.
    ///
    /// # Errors
    /// The object has no such program.
    pub fn program(&mut self, name: &str) -> Result<&mut RawTracePoint> {
        program(&mut self.ebpf, name)
    }

    /// `fault_event`, attached to an event of each CPU until these are dropped.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn fault_events(&mut self) -> Result<Vec<(u32, PerfEventLink)>> {
        faults::open_events(&mut self.ebpf)
    }

    /// What the kernel counts about one of the programs.
    ///
    /// # Errors
    /// The object has no such program, or the kernel does not tell.
    pub fn run_stats(&self, name: &str) -> Result<RunStats> {
        let program = self.ebpf.program(name).with_context(|| format!("no program {name}"))?;
        RunStats::of(program.fd()?)
    }

    /// Attaches the probe, pins the links and gives the pins their name: from now on faults are
    /// charged, whether this process lives or not. On failure nothing stays behind.
    ///
    /// # Errors
    /// The kernel lacks what they are attached to, or refuses.
    pub fn attach(mut self) -> Result<(Engine, Option<EbpfLogger<&'static dyn log::Log>>)> {
        let attached = attach(&mut self.ebpf, &self.pins.unfinished(), self.faults)
            .and_then(|()| self.pins.finish());
        undo_on_error(&self.pins, attached)?;
        self.engine.pins = self.pins;
        Ok((self.engine, self.log))
    }
}

/// The verifier's log can be megabytes: the message has its last words, the debug log all of it.
pub(super) fn refused(name: &str, error: ProgramError) -> anyhow::Error {
    let message = format!("the kernel refuses the program {name}");
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow::Error::new(error).context(message);
    };
    let text = verifier_log.to_string();
    log::debug!("{text}");
    let said = |line: &&str| !line.is_empty() && !line.starts_with("processed ");
    let last: Vec<_> = text.lines().rev().filter(said).take(2).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("; ");
    let message = if last.is_empty() { message } else { format!("{message} ({last})") };
    anyhow::Error::new(io_error).context(message)
}

/// Names such as `.rodata` cannot be pinned, and need not be: the programs hold them.
pub(super) fn is_pinned_map(name: &str) -> bool {
    !name.starts_with('.') && name != kernel_stock::MAP
}

/// Whether a program is loaded with the others.
fn is_engines(name: &str) -> bool {
    name != LEARN
        && name != migrate::PROBE
        && kernel_stock::ATTACHMENTS.iter().all(|&(other, _)| name != other)
}

pub(super) fn is_pinned_program(name: &str) -> bool {
    name != YARDSTICK && (is_engines(name) || name == migrate::PROBE)
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

pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut RawTracePoint> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name} in the object"))?
        .try_into()?)
}
