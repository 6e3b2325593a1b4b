//! The page-fault probe.
//!
//! Kernel prototype (`exceptions:page_fault_user`, `exceptions:page_fault_kernel`,
//! `include/trace/events/exceptions.h`): `(unsigned long address, struct pt_regs *regs,
//! unsigned long error_code)`.
//!
//! One program for both tracepoints: the kernel does not run a raw tracepoint program inside itself on one CPU, so a
//! fault of a profiler's stack walk in an NMI cannot interrupt the plain stores to this CPU's slot. Such a fault is
//! skipped and counted as a recursion miss.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::fault::{Consumed, consume_or_miss};
use memstock_common::{Loss, Word, World};

use crate::machine::{Kernel, slot};
use crate::maps::{GENERATION, STOCK, TAIL_CALLS};
use crate::outlined;
use crate::payer::{Payer, faulting_task, owner};

/// Consumes one page of this CPU's stock for the current cgroup and leaves it pending.
#[raw_tracepoint(tracepoint = "page_fault_user")]
#[inline(always)]
pub fn fault(ctx: RawTracePointContext) -> i32 {
    if let Some(owner) = consume(&ctx) {
        // SAFETY: nothing here needs to be dropped.
        unsafe { TAIL_CALLS.tail_call(&ctx, 0) };
        Kernel.lose(Loss::TailCallsFailed, 1);
        outlined::count_unserved(owner);
    }
    0
}

/// The owner to charge, if the fault missed.
#[inline(always)]
fn consume(ctx: &RawTracePointContext) -> Option<u32> {
    let first = STOCK.get(0)?;
    let owner = owner(first, faulting_task(ctx), GENERATION.load(), Payer::Memory);
    let stock = slot(first, owner)?;
    (consume_or_miss(stock, owner) == Consumed::Miss).then_some(owner)
}
