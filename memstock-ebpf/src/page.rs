//! The probes of the page allocator.
//!
//! Kernel prototypes (`kmem:mm_page_alloc`, `kmem:mm_page_free`, `include/trace/events/kmem.h`): `(struct page *page,
//! unsigned int order, gfp_t gfp_flags, int migratetype)`, where `page` is NULL if the allocation failed; `(struct page
//! *page, unsigned int order)`; and, of `kmem:mm_page_pcpu_drain`, `(struct page *page, unsigned int order, int
//! migratetype)`.
//!
//! The kernel does not run a program inside itself on one CPU. An interrupt that frees page tables after a grace period
//! frees many at once, all unseen if it came while `page_free` ran. They are repaired when they leave the CPU's list of
//! free pages for the buddy allocator, or when they are allocated again from that list. Where other tasks can preempt a
//! program as well, the tracepoints of allocation and free have a second program each (`memstock_common::again`).

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::again::{freed_unseen, is_unseen};
use memstock_common::page::{allocated, drained, freed};
use memstock_common::{NOBODY, Stock, Word};

use crate::config;
use crate::machine::{Kernel, slot};
use crate::maps::{GENERATION, STOCK};
use crate::memory::task_flags;
use crate::payer::{Payer, owner, running_task};
use crate::word::MapWord;

/// Commits the page that a fault left pending, or charges an allocation without a fault.
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
#[inline(always)]
pub fn page_alloc(ctx: RawTracePointContext) -> i32 {
    if let Some(allocation) = Allocation::of(&ctx) {
        allocation.charge(&ctx);
    }
    0
}

/// Charges what was allocated while [`page_alloc`] was preempted on this CPU. Attached after it, on kernels that
/// preempt it.
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
#[inline(always)]
pub fn alloc_again(ctx: RawTracePointContext) -> i32 {
    if let Some(allocation) = Allocation::of(&ctx)
        && allocation.is_charged
        && is_unseen(&Kernel, allocation.pfn)
    {
        allocation.charge(&ctx);
    }
    0
}

/// What the tracepoint's arguments say about an allocation.
#[derive(Clone, Copy)]
struct Allocation {
    pfn: u64,
    order: u32,
    is_charged: bool,
    is_compound: bool,
    pays: Payer,
}

impl Allocation {
    /// None if the allocation failed.
    #[inline(always)]
    fn of(ctx: &RawTracePointContext) -> Option<Self> {
        let (page, order, gfp): (u64, u32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
        if page == 0 {
            return None;
        }
        let flags = config::gfp_flags();
        Some(Self {
            pfn: config::pfn_of(page),
            order,
            is_charged: flags.is_charged(gfp, order)
                || flags.may_be_users(gfp, order) && flags.is_explained(gfp, task_flags()),
            is_compound: gfp & flags.compound != 0,
            pays: if flags.is_kernels(gfp) { Payer::Task } else { Payer::Memory },
        })
    }

    /// Charges it, if the kernel does.
    #[inline(always)]
    fn charge(self, ctx: &RawTracePointContext) {
        let Self { pfn, order, is_charged, is_compound, .. } = self;
        allocated(&Kernel, pfn, order, is_charged, is_compound, || self.payer(ctx));
    }

    /// The owner to charge, and its slot.
    #[inline(always)]
    fn payer(self, ctx: &RawTracePointContext) -> (u32, Option<&'static Stock<MapWord>>) {
        let generation = GENERATION.load();
        let Some(first) = STOCK.get(0) else {
            return (NOBODY, None);
        };
        let owner = owner(first, running_task(ctx), generation, self.pays);
        (owner, slot(first, owner))
    }
}

/// Uncharges the owners of the pages freed.
#[raw_tracepoint(tracepoint = "mm_page_free")]
#[inline(always)]
pub fn page_free(ctx: RawTracePointContext) -> i32 {
    let (pfn, order) = block(&ctx);
    freed(&Kernel, pfn, order);
    0
}

/// The same, for frees while [`page_free`] is preempted on this CPU.
#[raw_tracepoint(tracepoint = "mm_page_free")]
#[inline(always)]
pub fn free_again(ctx: RawTracePointContext) -> i32 {
    let (pfn, order) = block(&ctx);
    freed_unseen(&Kernel, pfn, order);
    0
}

/// Uncharges the owners of pages whose free was missed.
#[raw_tracepoint(tracepoint = "mm_page_pcpu_drain")]
#[inline(always)]
pub fn page_drain(ctx: RawTracePointContext) -> i32 {
    let (pfn, order) = block(&ctx);
    drained(&Kernel, pfn, order);
    0
}

/// The block that is freed: its first page frame, and its order.
#[inline(always)]
fn block(ctx: &RawTracePointContext) -> (u64, u32) {
    (config::pfn_of(ctx.arg(0)), ctx.arg(1))
}
