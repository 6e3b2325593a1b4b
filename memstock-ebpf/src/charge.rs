//! The shared-counter program: `fault` tail-calls it when the stock could not serve.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use memstock_common::Word;
use memstock_common::fault::miss;

use crate::machine::{Kernel, owner_and_stock};
use crate::maps::GENERATION;

/// Charges a batch for the current cgroup and refills this CPU's stock.
#[raw_tracepoint(tracepoint = "page_fault_user")]
#[inline(always)]
pub fn charge(ctx: RawTracePointContext) -> i32 {
    let generation = GENERATION.load();
    let Some((owner, stock)) = owner_and_stock(&ctx, generation) else {
        return 0;
    };
    miss(&Kernel, stock, owner, generation);
    // Off unless the user half raises the level at load: then the verifier drops this.
    debug!(&ctx, "miss: cgroup {}", owner);
    0
}
