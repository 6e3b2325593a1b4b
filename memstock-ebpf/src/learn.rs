//! How the user half learns where the array of `struct page` begins: this program tells it the
//! `struct page` of each page that it allocates. Loaded and attached by itself, before all others.

use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::Word;

use crate::config;
use crate::maps::LEARNT;

/// Keeps the `struct page` of the last charged single page that the user half has allocated.
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
#[inline(always)]
pub fn learn(ctx: RawTracePointContext) -> i32 {
    let (page, order, gfp_flags): (u64, u32, u64) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    // SAFETY: the helper has no preconditions.
    let thread = unsafe { bpf_get_current_pid_tgid() } as u32;
    if order == 0
        && thread == config::learn_from()
        && config::is_charged(gfp_flags)
        && let Some(learnt) = LEARNT.get(0)
    {
        learnt.store(page);
    }
    0
}
