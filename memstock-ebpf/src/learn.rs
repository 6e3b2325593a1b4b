//! How the user half learns where the array of `struct page` begins: this program reports the `struct page` of each
//! page that it allocates. Loaded and attached by itself, before all others.

use aya_ebpf::bindings::bpf_pidns_info;
use aya_ebpf::helpers::generated::bpf_get_ns_current_pid_tgid;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::Word;

use crate::config;
use crate::maps::LEARNT;

/// Stores the `struct page` of the last charged single page that the user half has allocated.
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
#[inline(always)]
pub fn learn(ctx: RawTracePointContext) -> i32 {
    let (page, order, gfp_flags): (u64, u32, u32) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    if order == 0
        && config::gfp_flags().is_charged(gfp_flags, order)
        && is_learner()
        && let Some(learnt) = LEARNT.get(0)
    {
        learnt.store(page);
    }
    0
}

/// Whether the learning thread is running. It knows only its id in its own PID namespace, which a container has
/// (`bpf_get_ns_current_pid_tgid` came with Linux 5.7).
#[inline(always)]
fn is_learner() -> bool {
    let (dev, ino) = config::pid_ns();
    let mut info = bpf_pidns_info { pid: 0, tgid: 0 };
    // SAFETY: `info` has the size given, and lives until the call returns.
    let found = unsafe {
        bpf_get_ns_current_pid_tgid(dev, ino, &raw mut info, size_of::<bpf_pidns_info>() as u32)
    };
    // A thread of another namespace is not found.
    found == 0 && info.pid == config::learn_from()
}
