//! The shared-counter program: `fault` tail-calls it when the stock is empty or another cgroup's.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use memstock_common::{NOBODY, Word, fault};

use crate::machine::{Kernel, slot};
use crate::maps::{GENERATION, STOCK};
use crate::payer::{Payer, faulting_task, is_user_fault, owner};

/// Charges a batch for the current cgroup and refills this CPU's stock.
#[raw_tracepoint(tracepoint = "page_fault_user")]
#[inline(always)]
pub fn charge(ctx: RawTracePointContext) -> i32 {
    let Some(first) = STOCK.get(0) else {
        return 0;
    };
    let owner = owner(first, faulting_task(&ctx), GENERATION.load(), Payer::Memory);
    if owner == NOBODY {
        return 0;
    }
    let Some(stock) = slot(first, owner) else {
        return 0;
    };
    fault::miss(&Kernel, stock, owner, is_user_fault(&ctx));
    // Off unless the user half raises the log level at load; while it is off, the verifier drops this.
    debug!(&ctx, "miss: owner {}", owner);
    0
}
