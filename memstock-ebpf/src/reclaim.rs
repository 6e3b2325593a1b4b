//! The probe that tells the user half that the kernel begins to reclaim memory.
//!
//! Kernel prototypes (`include/trace/events/vmscan.h`): `mm_vmscan_direct_reclaim_begin` and, with
//! `CONFIG_MEMCG`, `mm_vmscan_memcg_reclaim_begin`, before the first page is looked at;
//! `mm_vmscan_kswapd_wake`, when kswapd begins. No argument is read.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::event;

use crate::machine::Kernel;
use crate::maps::RECLAIM_SENT_AT;

/// Reports that reclaim begins.
#[raw_tracepoint(tracepoint = "mm_vmscan_direct_reclaim_begin")]
#[inline(always)]
pub fn reclaim_began(_ctx: RawTracePointContext) -> i32 {
    event::reclaim_began(&Kernel, &RECLAIM_SENT_AT);
    0
}
