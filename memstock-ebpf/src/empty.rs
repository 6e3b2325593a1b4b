//! The baseline of the benches: what any program on the tracepoint costs.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

/// Does nothing.
#[raw_tracepoint(tracepoint = "page_fault_user")]
#[inline(always)]
pub fn empty(_ctx: RawTracePointContext) -> i32 {
    0
}
