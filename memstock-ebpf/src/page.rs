//! The probes of the page allocator.
//!
//! Kernel prototypes (`kmem:mm_page_alloc`, `kmem:mm_page_free`, `include/trace/events/kmem.h`):
//! `(struct page *page, unsigned int order, gfp_t gfp_flags, int migratetype)`, where `page` is NULL
//! when there was none; `(struct page *page, unsigned int order)`; and, of `kmem:mm_page_pcpu_drain`,
//! `(struct page *page, unsigned int order, int migratetype)`.
//!
//! The kernel does not run a program inside itself on one CPU. An interrupt that frees page tables
//! after a grace period frees many at once, and all of them unseen if it came while `page_free` ran.
//! They are repaired when they leave the CPU's list of free pages for the buddy allocator, or when
//! they are allocated again from that list.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::page::{allocated, drained, freed};
use memstock_common::{NOBODY, Word};

use crate::config;
use crate::machine::{Kernel, slot};
use crate::maps::{GENERATION, STOCK};
use crate::payer::{Payer, owner, running_task};

/// Commits the page that a fault has left pending, or charges what was allocated without one.
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
#[inline(always)]
pub fn page_alloc(ctx: RawTracePointContext) -> i32 {
    let (page, order, gfp): (u64, u32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    if page != 0 {
        let flags = config::gfp_flags();
        let (is_charged, is_compound) = (flags.is_charged(gfp, order), gfp & flags.compound != 0);
        allocated(&Kernel, config::pfn_of(page), order, is_charged, is_compound, || {
            let generation = GENERATION.load();
            let Some(first) = STOCK.get(0) else {
                return (NOBODY, None);
            };
            let pays = if flags.is_kernels(gfp) { Payer::Task } else { Payer::Memory };
            let owner = owner(first, running_task(&ctx), generation, pays);
            (owner, slot(first, owner))
        });
    }
    0
}

/// Uncharges the owners of what is freed.
#[raw_tracepoint(tracepoint = "mm_page_free")]
#[inline(always)]
pub fn page_free(ctx: RawTracePointContext) -> i32 {
    let (page, order): (u64, u32) = (ctx.arg(0), ctx.arg(1));
    freed(&Kernel, config::pfn_of(page), order);
    0
}

/// Uncharges the owners of what was freed unseen.
#[raw_tracepoint(tracepoint = "mm_page_pcpu_drain")]
#[inline(always)]
pub fn page_drain(ctx: RawTracePointContext) -> i32 {
    let (page, order): (u64, u32) = (ctx.arg(0), ctx.arg(1));
    drained(&Kernel, config::pfn_of(page), order);
    0
}
