//! The page-fault probe where the kernel has no tracepoints for faults: a program of perf's software event
//! `PERF_COUNT_SW_PAGE_FAULTS`, one event on each CPU. Attached instead of `fault`, never beside it.
//!
//! The architecture raises the event for a fault at a user address (x86: `do_user_addr_fault`), on the way to
//! `handle_mm_fault`, with preemption off and interrupts on. The registers that it hands over are read through the
//! verifier only, so the task is told by its name. A program of this type cannot tail-call `charge`, which is of
//! another: a miss is counted, and left to the allocation. Who goes on at a limit is held up here, since he holds no lock yet.
//!
//! Why this is safe:
//!
//! - It does not nest: the kernel skips it while any program of perf runs on the CPU, and while bpf(2) is in a
//!   map there (`bpf_overflow_handler` in `kernel/events/core.c`, `bpf_prog_active`), without a count. A
//!   fault that is skipped leaves nothing pending, so what it allocates is charged by `page_alloc`.
//! - `page_alloc`, `page_free` and `page_drain` may run in an interrupt in its midst. The one word that it stores
//!   plainly, `faults`, they do not write. All else that both write changes by atomic operations, or in an order
//!   that stands an interruption (`Identity`, `settle` of `memstock_common::fault`).

use aya_ebpf::EbpfContext as _;
#[cfg(bpf_target_arch = "x86_64")]
use aya_ebpf::bindings::bpf_perf_event_data;
use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;
use memstock_common::identity::Task;

use crate::fault::consume;
use crate::rest;

/// Consumes one page of this CPU's stock for the current cgroup and leaves it pending.
#[perf_event]
#[inline(always)]
pub fn fault_event(ctx: PerfEventContext) -> i32 {
    if let Some(owner) = consume(Task::Current) {
        rest::count_unserved(owner);
        if is_of_user(&ctx) {
            rest::wait(owner);
        }
    }
    0
}

/// Whether the fault was taken in user mode (`user_mode` of x86: the privilege level in `cs`); false where that is not known.
#[inline(always)]
fn is_of_user(ctx: &PerfEventContext) -> bool {
    #[cfg(bpf_target_arch = "x86_64")]
    {
        let data = ctx.as_ptr().cast::<bpf_perf_event_data>();
        // SAFETY: the context of a program of perf's, of which the verifier allows each register to be read.
        unsafe { (&raw const (*data).regs.cs).read_volatile() & 3 == 3 }
    }
    #[cfg(not(bpf_target_arch = "x86_64"))]
    {
        let _ = ctx;
        false
    }
}
