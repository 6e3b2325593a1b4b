//! What the kernel's own memory controller does: its charges and its shared counters, to compare with memstock's.
//! Loaded separately, for `memstock stat --kernel-stock`.
//!
//! Kernel prototypes: `try_charge_memcg` (`mm/memcontrol.c`): `(struct mem_cgroup *memcg, gfp_t gfp_mask, unsigned
//! int nr_pages)`, which consumes from the CPU's stock or, on a miss, charges a batch by
//! `page_counter_try_charge` (`mm/page_counter.c`): `(struct page_counter *counter, unsigned long nr_pages, struct
//! page_counter **fail)`, once for memory and, on cgroup v1, once for memory+swap.

use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use aya_ebpf::macros::fentry;
use aya_ebpf::programs::FEntryContext;
use memstock_common::{KernelCharges, Loss, Word, World};

use crate::machine::Kernel;
use crate::maps::KERNEL_STOCK;
use crate::word::MapWord;

/// Counts the charges requested.
#[fentry(function = "try_charge_memcg")]
pub fn kernel_charge(ctx: FEntryContext) -> i32 {
    let nr_pages: u32 = ctx.arg(2);
    count(|charges| {
        charges.charges.fetch_add(1);
        charges.nr_pages.fetch_add(nr_pages.into());
    });
    0
}

/// Counts the charges on shared counters.
#[fentry(function = "page_counter_try_charge")]
pub fn kernel_shared(_ctx: FEntryContext) -> i32 {
    count(|charges| {
        charges.shared_operations.fetch_add(1);
    });
    0
}

/// Counts for the cgroup of the current task. By atomic operations, since an interrupt may count in between.
#[inline(always)]
fn count(add: impl Fn(&KernelCharges<MapWord>)) {
    const BPF_NOEXIST: u64 = 1;
    // SAFETY: the helper has no preconditions.
    let id = unsafe { bpf_get_current_cgroup_id() };
    if KERNEL_STOCK.get_ptr(id).is_none() {
        // Fails if another CPU was first, which is fine, or if the map is full; the look-up below then finds nothing.
        let _ = KERNEL_STOCK.insert(id, KernelCharges::<MapWord>::default(), BPF_NOEXIST);
    }
    match KERNEL_STOCK.get_ptr(id) {
        // SAFETY: values of the map live until they are removed, and nothing removes them.
        Some(charges) => add(unsafe { &*charges }),
        None => Kernel.lose(Loss::CountersMissing, 1),
    }
}
