//! The probes that tell the user half which cgroups are made and removed.
//!
//! Kernel prototypes (`cgroup:cgroup_mkdir`, `cgroup:cgroup_rmdir`, `include/trace/events/cgroup.h`): `(struct cgroup
//! *cgrp, const char *path)`, after the cgroup was made, and after it was removed. They fire for v1 hierarchies too,
//! whose directories have ids of their own: now and then one equals that of a cgroup v2.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::event::EventKind;
use memstock_common::{Event, World};

use crate::config;
use crate::machine::Kernel;

/// The id of the cgroup v2 hierarchy: the first one made (`cgroup_init` in `kernel/cgroup/cgroup.c`), and 0 in
/// `/proc/PID/cgroup`.
const DEFAULT_HIERARCHY: i32 = 0;

/// Reports that a cgroup was made.
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
#[inline(always)]
pub fn cgroup_made(ctx: RawTracePointContext) -> i32 {
    report(&ctx, EventKind::CgroupMade)
}

/// Reports that a cgroup was removed.
#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
#[inline(always)]
pub fn cgroup_removed(ctx: RawTracePointContext) -> i32 {
    report(&ctx, EventKind::CgroupRemoved)
}

#[inline(always)]
fn report(ctx: &RawTracePointContext, kind: EventKind) -> i32 {
    let cgroup: u64 = ctx.arg(0);
    if hierarchy_of(cgroup) != Some(DEFAULT_HIERARCHY) {
        return 0;
    }
    let cgroup_id = id_of(cgroup).unwrap_or(0);
    Kernel.emit(&Event { kind: kind as u32, time_ns: Kernel.now(), cgroup_id, ..Event::default() });
    0
}

/// `cgrp->root->hierarchy_id`.
#[inline(always)]
pub fn hierarchy_of(cgroup: u64) -> Option<i32> {
    // SAFETY: the helper reads kernel memory at any address, or fails.
    unsafe {
        let root = (cgroup + config::cgroup_root()) as *const u64;
        let root = bpf_probe_read_kernel(root).ok()?;
        bpf_probe_read_kernel((root + config::hierarchy_id()) as *const i32).ok()
    }
}

/// `cgrp->kn->id`.
#[inline(always)]
pub fn id_of(cgroup: u64) -> Option<u64> {
    // SAFETY: the helper reads kernel memory at any address, or fails.
    unsafe {
        let node: u64 = bpf_probe_read_kernel((cgroup + config::cgroup_kn()) as *const u64).ok()?;
        bpf_probe_read_kernel((node + config::kernfs_id()) as *const u64).ok()
    }
}
