//! Reports every charge and uncharge of an engine, in the order in which they happen on a CPU. Loaded separately, for
//! `memstock record --charges`, with the engine's `OWNERS` and `CGROUPS`, and attached only while recording. Each
//! program then comes after the engine's own at the same tracepoint, when `OWNERS` already says whom the engine
//! charged.
//!
//! The algorithm finds out which pages those are, as it does for the engine, on a page-owner map of its own and without
//! a stock: where it would charge, [`Reporter`] reports. Kernel prototypes: those of `fault`, `page`, `file` and
//! `hotplug`.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::page::{CHUNK_PAGES, Replaced, allocated, freed, owner_in};
use memstock_common::record::{Charged, RecordKind};
use memstock_common::world::Step;
use memstock_common::{
    CgroupCpu, Chunk, Counter, Counters, Entry, Event, Loss, Machine, NOBODY, Stock, World, file,
};

use crate::config;
use crate::folio;
use crate::machine::Kernel;
use crate::maps::{CGROUP_CPU, CHARGED};
use crate::outlined;
use crate::payer::Payer;
use crate::record::report;
use crate::word::{MapEntry, MapWord};

/// A page fault of a tracked cgroup.
#[raw_tracepoint(tracepoint = "page_fault_user")]
pub fn charged_fault(_ctx: RawTracePointContext) -> i32 {
    // Forget what is remembered of a task: nothing invalidates it here.
    Kernel.next_generation();
    match outlined::ask_owner(0, Payer::Memory as u32) {
        NOBODY => {}
        owner => report_here(RecordKind::Fault, owner, 1),
    }
    0
}

/// Pages were allocated, and charged to the owner in the engine's map.
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
pub fn charged_alloc(ctx: RawTracePointContext) -> i32 {
    let (page, order): (u64, u32) = (ctx.arg(0), ctx.arg(1));
    if page != 0 {
        let pfn = config::pfn_of(page);
        let owner = owner_at(&Kernel, pfn);
        allocated(&Reporter, pfn, order, owner != NOBODY, true, || (owner, None));
    }
    0
}

/// Pages are freed, or leave a CPU's list of free pages after a missed free.
#[raw_tracepoint(tracepoint = "mm_page_free")]
pub fn charged_free(ctx: RawTracePointContext) -> i32 {
    let (page, order): (u64, u32) = (ctx.arg(0), ctx.arg(1));
    freed(&Reporter, config::pfn_of(page), order);
    0
}

/// Pages enter the page cache, and were charged for that if they had no owner before.
#[raw_tracepoint(tracepoint = "mm_filemap_add_to_page_cache")]
pub fn charged_file(ctx: RawTracePointContext) -> i32 {
    let folio: u64 = ctx.arg(0);
    let pfn = config::pfn_of(folio);
    let owner = owner_at(&Kernel, pfn);
    if owner != NOBODY
        && owner_at(&Reporter, pfn) == NOBODY
        && let Some(nr_pages) = folio::nr_pages(folio)
    {
        file::claim(&Reporter, pfn, nr_pages, owner);
    }
    0
}

/// A CPU is going down or coming up, and was drained.
#[raw_tracepoint(tracepoint = "cpuhp_exit")]
pub fn charged_hotplug(ctx: RawTracePointContext) -> i32 {
    let cpu: u32 = ctx.arg(0);
    if cpu != here() {
        report(&Charged { kind: RecordKind::Drained as u32, cpu, owner: NOBODY, nr_pages: 0 });
    }
    0
}

#[inline(always)]
fn here() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}

#[inline(always)]
fn report_here(kind: RecordKind, owner: u32, nr_pages: u32) {
    report(&Charged { kind: kind as u32, cpu: here(), owner, nr_pages });
}

/// The owner of a page.
#[inline(always)]
fn owner_at<M: Machine>(machine: &M, pfn: u64) -> u32 {
    machine.chunk(pfn).map_or(NOBODY, |chunk| owner_in(chunk.entry(pfn).load()))
}

/// The world of the algorithm here: [`Kernel`], but with the page-owner map of these programs, and nothing to charge.
pub struct Reporter;

impl Counters for Reporter {
    type Word = MapWord;

    #[inline(always)]
    fn counter(&self, _index: u32) -> Option<&Counter<MapWord>> {
        None
    }
    #[inline(always)]
    fn memsw(&self) -> bool {
        false
    }
    #[inline(always)]
    fn max_depth(&self) -> u32 {
        config::max_depth()
    }
}

impl Machine for Reporter {
    #[inline(always)]
    fn charge_rest(&self, owner: u32, nr_pages: u32) -> u32 {
        report_here(RecordKind::Charged, owner, nr_pages);
        nr_pages
    }
    #[inline(always)]
    fn uncharge_rest(&self, owner: u32, nr_pages: u32) {
        report_here(RecordKind::Uncharged, owner, nr_pages);
    }
    #[inline(always)]
    fn file_changed(&self, _owner: u32, _change: i32) {}
    #[inline(always)]
    fn replace_block(&self, pfn: u64, order: u32, new: u32) -> Replaced {
        Replaced::from_bits(outlined::replace_charged(pfn, order, new))
    }
}

impl World for Reporter {
    type Entry = MapEntry;

    #[inline(always)]
    fn chunk(&self, pfn: u64) -> Option<&Chunk<MapEntry>> {
        CHARGED.get(u32::try_from(pfn / u64::from(CHUNK_PAGES)).unwrap_or(u32::MAX))
    }
    /// Any entry will do: the algorithm needs statistics to write to, and nobody reads these.
    #[inline(always)]
    fn cgroup_cpu(&self, _index: u32) -> Option<&CgroupCpu<MapWord>> {
        CGROUP_CPU.get(0)
    }
    #[inline(always)]
    fn cgroup_cpu_of(&self, _index: u32, _cpu: u32) -> Option<&CgroupCpu<MapWord>> {
        None
    }
    #[inline(always)]
    fn stock(&self, _slot: u32) -> Option<&Stock<MapWord>> {
        None
    }
    #[inline(always)]
    fn stock_of(&self, _cpu: u32, _slot: u32) -> Option<&Stock<MapWord>> {
        None
    }
    #[inline(always)]
    fn tracked(&self, key: u32) -> Option<u32> {
        Kernel.tracked(key)
    }
    #[inline(always)]
    fn track(&self, _key: u32, _index: u32) -> bool {
        false
    }
    #[inline(always)]
    fn untrack(&self, _key: u32) {}
    #[inline(always)]
    fn generation(&self) -> u64 {
        Kernel.generation()
    }
    #[inline(always)]
    fn next_generation(&self) {
        Kernel.next_generation();
    }
    #[inline(always)]
    fn opaque_zero(&self) -> u32 {
        Kernel.opaque_zero()
    }
    #[inline(always)]
    fn repeat<S: Step>(&self, times: u32, walk: &mut S) {
        Kernel.repeat(times, walk);
    }
    #[inline(always)]
    fn batch(&self) -> u32 {
        1
    }
    #[inline(always)]
    fn slots(&self) -> u32 {
        1
    }
    #[inline(always)]
    fn now(&self) -> u64 {
        Kernel.now()
    }
    #[inline(always)]
    fn lease_until(&self) -> u64 {
        0
    }
    #[inline(always)]
    fn setting(&self) -> &MapWord {
        Kernel.setting()
    }
    #[inline(always)]
    fn emit(&self, _event: &Event) {}
    #[inline(always)]
    fn task(&self) -> u32 {
        Kernel.task()
    }
    #[inline(always)]
    fn tracks_collapses(&self) -> bool {
        false
    }
    #[inline(always)]
    fn collapse(&self, _place: u32) -> Option<&MapWord> {
        None
    }
    #[inline(always)]
    fn is_free(&self, _pfn: u64) -> bool {
        false
    }
    #[inline(always)]
    fn lose(&self, loss: Loss, count: u64) {
        Kernel.lose(loss, count);
    }
}
