//! The probe that invalidates what the CPUs remember of tasks and their cgroups.
//!
//! Kernel prototypes: `task:task_newtask` `(struct task_struct *task, u64 clone_flags)`, at the end of `copy_process`,
//! before the child can run; `cgroup:cgroup_attach_task` `(struct cgroup *dst_cgrp, const char *path, struct
//! task_struct *task, bool threadgroup)`, after the tasks were moved. It reads no argument.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::World;

use crate::machine::Kernel;

/// Starts a new generation.
#[raw_tracepoint(tracepoint = "task_newtask")]
#[inline(always)]
pub fn bump_generation(_ctx: RawTracePointContext) -> i32 {
    Kernel.next_generation();
    0
}
