//! The maps as the algorithm sees them.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_ktime_get_ns,
    bpf_map_lookup_percpu_elem,
};
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::fault::nearest_tracked;
use memstock_common::{
    CgroupCpu, Counter, Counters, Event, Loss, Machine, Stock, Word, owner_of, slot_of,
};

use crate::config;
use crate::maps::{CGROUP_CPU, CGROUPS, COUNTERS, EVENTS, GENERATION, LOSS, STOCK};
use crate::word::MapWord;

/// This kernel.
pub struct Kernel;

/// The cgroup of the current task, as packed words name it.
#[inline(always)]
fn current_owner() -> u32 {
    // SAFETY: the helper has no preconditions.
    owner_of(unsafe { bpf_get_current_cgroup_id() })
}

/// The ancestor of the current task's cgroup at a level below the root; 0 if there is none.
#[inline(always)]
fn current_ancestor(level: u32) -> u32 {
    // SAFETY: the helper has no preconditions.
    owner_of(unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) })
}

/// Set in the error code of a fault that was taken in user mode: `X86_PF_USER`
/// (`arch/x86/include/asm/trap_pf.h`). Elsewhere no bit is known to say so, and every fault asks.
const USER_FAULT: u64 = if cfg!(bpf_target_arch = "x86_64") { 1 << 2 } else { 0 };

/// The cgroup of the task whose fault this is, and the slot of this CPU in which it may be cached.
///
/// What tells a task from every other living one without asking the kernel is where a fault in user
/// mode saves its registers: at the top of the task's own kernel stack. Faults in kernel mode may
/// save them on the stack of an interrupt, which is nobody's, so they always ask.
#[inline(always)]
pub fn owner_and_stock(
    ctx: &RawTracePointContext,
    generation: u64,
) -> Option<(u32, &'static Stock<MapWord>)> {
    let (regs, error_code): (u64, u64) = (ctx.arg(1), ctx.arg(2));
    let task = if error_code & USER_FAULT != 0 { regs } else { 0 };
    let first = STOCK.get(0)?;
    let owner = first.identity.owner(task, generation, || {
        nearest_tracked(&Kernel, first, generation, current_owner(), current_ancestor)
    });
    // With one slot the verifier drops the second look-up.
    match slot_of(owner, config::slots()) {
        0 => Some((owner, first)),
        slot => Some((owner, STOCK.get(slot)?)),
    }
}

/// The value of another CPU in a per-CPU array; none if there is no such CPU or index.
#[inline(always)]
fn percpu_value<M, V>(map: &'static M, index: u32, cpu: u32) -> Option<&'static V> {
    // SAFETY: a map static is the map's definition, which the loader replaces by the map, and
    // its values are of type V, live as long as the map and are shared through `MapWord` only.
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

impl Machine for Kernel {
    #[inline(always)]
    fn tracked(&self, owner: u32) -> Option<u32> {
        // SAFETY: values are u32 and replaced as a whole.
        unsafe { CGROUPS.get(owner) }.copied()
    }

    #[inline(always)]
    fn track(&self, owner: u32, index: u32) -> bool {
        const BPF_NOEXIST: u64 = 1;
        CGROUPS.insert(owner, index, BPF_NOEXIST).is_ok()
    }

    #[inline(always)]
    fn untrack(&self, owner: u32) {
        // Removing what is not there is no error to anybody.
        let _ = CGROUPS.remove(owner);
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
    fn stock_of(&self, cpu: u32, slot: u32) -> Option<&Stock<MapWord>> {
        percpu_value(&STOCK, slot, cpu)
    }

    #[inline(always)]
    fn cgroup_cpu_of(&self, index: u32, cpu: u32) -> Option<&CgroupCpu<MapWord>> {
        percpu_value(&CGROUP_CPU, index, cpu)
    }

    #[inline(always)]
    fn batch(&self) -> u32 {
        config::batch()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn emit(&self, event: &Event) {
        if EVENTS.output::<Event>(event, 0).is_err() {
            self.lose(Loss::EventsLost, 1);
        }
    }

    #[inline(always)]
    fn lose(&self, loss: Loss, count: u64) {
        if let Some(word) = LOSS.get(loss as u32) {
            word.fetch_add(count);
        }
    }
}
