//! The [`World`] of the algorithm in the kernel: maps, clock and loops.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_loop, bpf_map_lookup_percpu_elem,
};
use memstock_common::charge::Over;
use memstock_common::page::{CHUNK_PAGES, Replaced};
use memstock_common::world::Step;
use memstock_common::{
    CgroupCpu, Chunk, Counter, Counters, Event, Loss, Machine, Stock, Word, World, slot_of,
};

use crate::config;
use crate::folio;
use crate::maps::{
    CGROUP_CPU, CGROUPS, COLLAPSES, COUNTERS, EVENTS, GENERATION, LEASE_UNTIL, LOSS, OPAQUE_ZERO,
    OWNERS, SETTING, STOCK,
};
use crate::outlined;
use crate::word::{MapEntry, MapWord};

/// The running kernel.
pub struct Kernel;

/// The slot of this CPU in which `owner` may be cached. With one slot, which is `first`, the verifier drops the
/// look-up.
#[inline(always)]
pub fn slot(first: &'static Stock<MapWord>, owner: u32) -> Option<&'static Stock<MapWord>> {
    match slot_of(owner, config::slots()) {
        0 => Some(first),
        slot => STOCK.get(slot),
    }
}

/// The value of another CPU in a per-CPU array; none if there is no such CPU or index.
#[inline(always)]
fn percpu_value<M, V>(map: &'static M, index: u32, cpu: u32) -> Option<&'static V> {
    // SAFETY: a map static is the map's definition, which the loader replaces by the map. The map's values are of type
    // V, live as long as the map and are shared through `MapWord` only.
    unsafe {
        let map = core::ptr::from_ref(map).cast_mut().cast::<c_void>();
        let key = core::ptr::from_ref(&index).cast::<c_void>();
        bpf_map_lookup_percpu_elem(map, key, cpu).cast::<V>().as_ref()
    }
}

impl Counters for Kernel {
    type Word = MapWord;

    #[inline(always)]
    fn counter(&self, index: u32) -> Option<&Counter<MapWord>> {
        COUNTERS.get(index)
    }

    #[inline(always)]
    fn memsw(&self) -> bool {
        config::memsw()
    }

    #[inline(always)]
    fn max_depth(&self) -> u32 {
        config::max_depth()
    }
}

impl World for Kernel {
    type Entry = MapEntry;

    #[inline(always)]
    fn tracked(&self, key: u32) -> Option<u32> {
        // SAFETY: values are u32 and replaced as a whole.
        unsafe { CGROUPS.get(key) }.copied()
    }

    #[inline(always)]
    fn track(&self, key: u32, index: u32) -> bool {
        const BPF_NOEXIST: u64 = 1;
        CGROUPS.insert(key, index, BPF_NOEXIST).is_ok()
    }

    #[inline(always)]
    fn untrack(&self, key: u32) {
        // Removing a missing key is not an error.
        let _ = CGROUPS.remove(key);
    }

    #[inline(always)]
    fn generation(&self) -> u64 {
        GENERATION.load()
    }

    #[inline(always)]
    fn next_generation(&self) {
        GENERATION.fetch_add(1);
    }

    #[inline(always)]
    fn cgroup_cpu(&self, index: u32) -> Option<&CgroupCpu<MapWord>> {
        CGROUP_CPU.get(index)
    }

    #[inline(always)]
    fn stock(&self, slot: u32) -> Option<&Stock<MapWord>> {
        STOCK.get(slot)
    }

    #[inline(always)]
    fn stock_of(&self, cpu: u32, slot: u32) -> Option<&Stock<MapWord>> {
        percpu_value(&STOCK, slot, cpu)
    }

    #[inline(always)]
    fn cgroup_cpu_of(&self, index: u32, cpu: u32) -> Option<&CgroupCpu<MapWord>> {
        percpu_value(&CGROUP_CPU, index, cpu)
    }

    #[inline(always)]
    fn chunk(&self, pfn: u64) -> Option<&Chunk<MapEntry>> {
        // A map has at most 2^32 entries: a page frame beyond that must not wrap around.
        OWNERS.get(u32::try_from(pfn / u64::from(CHUNK_PAGES)).unwrap_or(u32::MAX))
    }

    #[inline(always)]
    fn opaque_zero(&self) -> u32 {
        OPAQUE_ZERO.load() as u32
    }

    #[inline(always)]
    fn repeat<S: Step>(&self, times: u32, walk: &mut S) {
        let step: unsafe extern "C" fn(u32, *mut c_void) -> i64 = step::<S>;
        // SAFETY: the helper calls `step` with `walk` before it returns.
        unsafe { bpf_loop(times, step as *mut c_void, core::ptr::from_mut(walk).cast(), 0) };
    }

    #[inline(always)]
    fn batch(&self) -> u32 {
        config::batch()
    }

    #[inline(always)]
    fn stock_pages(&self) -> u32 {
        config::stock_pages()
    }

    #[inline(always)]
    fn uncharge_batch(&self) -> u32 {
        config::uncharge_batch()
    }

    #[inline(always)]
    fn slots(&self) -> u32 {
        config::slots()
    }

    #[inline(always)]
    fn is_preempted(&self) -> bool {
        config::is_preempted()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn lease_until(&self) -> u64 {
        LEASE_UNTIL.load()
    }

    #[inline(always)]
    fn setting(&self) -> &MapWord {
        &SETTING
    }

    #[inline(always)]
    fn emit(&self, event: &Event) {
        if EVENTS.output::<Event>(event, 0).is_err() {
            self.lose(Loss::EventsLost, 1);
        }
    }

    #[inline(always)]
    fn task(&self) -> u32 {
        // SAFETY: the helper has no preconditions. The low half is what the kernel calls a PID and user space a thread
        // id.
        unsafe { bpf_get_current_pid_tgid() as u32 }
    }

    #[inline(always)]
    fn tracks_collapses(&self) -> bool {
        config::tracks_collapses()
    }

    #[inline(always)]
    fn collapse(&self, place: u32) -> Option<&MapWord> {
        COLLAPSES.get(place)
    }

    #[inline(always)]
    fn is_free(&self, pfn: u64) -> bool {
        folio::is_free(config::page_of(pfn)).unwrap_or(false)
    }

    #[inline(always)]
    fn lose(&self, loss: Loss, count: u64) {
        if let Some(word) = LOSS.get(loss as u32) {
            word.fetch_add(count);
        }
    }
}

impl Machine for Kernel {
    #[inline(always)]
    fn uncharge_rest(&self, owner: u32, nr_pages: u32) {
        outlined::uncharge_rest(owner, nr_pages);
    }

    #[inline(always)]
    fn uncharge_run(&self, owner: u32, nr_pages: u32, nr_file: u32) {
        outlined::uncharge_run(owner, nr_pages, nr_file);
    }

    #[inline(always)]
    fn uncharge(&self, leaf: u32, nr_pages: u32) {
        outlined::uncharge(leaf, nr_pages);
    }

    #[inline(always)]
    fn try_charge(&self, leaf: u32, nr_pages: u32) -> Result<(), Over> {
        Over::from_bits(outlined::try_charge(leaf, nr_pages))
    }

    #[inline(always)]
    fn charge_huge(&self, leaf: u32, nr_pages: u32) -> Result<(), Over> {
        Over::from_bits(outlined::charge_huge(leaf, nr_pages))
    }

    #[inline(always)]
    fn charge_forced(&self, leaf: u32, nr_pages: u32) {
        outlined::charge_forced(leaf, nr_pages);
    }

    #[inline(always)]
    fn charge_rest(&self, owner: u32, nr_pages: u32) -> u32 {
        outlined::charge_rest(owner, nr_pages)
    }

    #[inline(always)]
    fn change_file(&self, leaf: u32, change: i32) {
        outlined::change_file(leaf, change);
    }

    #[inline(always)]
    fn mark_file(&self, pfn: u64, nr_pages: u32, owner: u32) -> u32 {
        outlined::mark_file(pfn, nr_pages, owner)
    }

    #[inline(always)]
    fn claim(&self, pfn: u64, nr_pages: u32, owner: u32) {
        outlined::claim(pfn, nr_pages, owner);
    }

    #[inline(always)]
    fn replace_block(&self, pfn: u64, order: u32, new: u32) -> Replaced {
        Replaced::from_bits(outlined::replace_block(pfn, order, new))
    }
}

/// The callback of `bpf_loop` (Linux 5.17); 0 continues.
///
/// # Safety
/// `walk` is an `S` that nothing else refers to.
unsafe extern "C" fn step<S: Step>(_index: u32, walk: *mut c_void) -> i64 {
    // SAFETY: the caller's promise.
    let walk = unsafe { &mut *walk.cast::<S>() };
    (!walk.step()).into()
}
