//! Whom to charge: how a program identifies the current task, and finds its owner.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_task,
};
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::fault::nearest_tracked;
use memstock_common::owner_cache::{Answer, Task};
use memstock_common::{NOBODY, Stock, Word, key_of};

use crate::machine::Kernel;
use crate::maps::{GENERATION, STOCK};
use crate::memory;
use crate::outlined;
use crate::word::MapWord;

/// The key of the current task's cgroup.
#[inline(always)]
fn current_cgroup() -> u32 {
    // SAFETY: the helper has no preconditions.
    key_of(unsafe { bpf_get_current_cgroup_id() })
}

/// The key of the ancestor of the current task's cgroup at a level below the root; 0 if there is none.
#[inline(always)]
fn current_ancestor(level: u32) -> u32 {
    // SAFETY: the helper has no preconditions.
    key_of(unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) })
}

/// Set in the error code of a fault that was taken in user mode: `X86_PF_USER` (`arch/x86/include/asm/trap_pf.h`).
/// Other architectures have no such bit here.
const USER_FAULT: u64 = if cfg!(bpf_target_arch = "x86_64") { 1 << 2 } else { 0 };

/// How to tell the faulting task from every other living one.
///
/// Without asking the kernel: by where a fault in user mode saves its registers, at the top of the task's own kernel
/// stack. Faults in kernel mode may save them on an interrupt stack, which belongs to no task.
#[inline(always)]
pub fn faulting_task(ctx: &RawTracePointContext) -> Task {
    if is_user_fault(ctx) { Task::Registers(ctx.arg(1)) } else { Task::Current }
}

/// Whether a fault was taken in user mode, where a task holds no kernel lock; false if not known.
#[inline(always)]
pub fn is_user_fault(ctx: &RawTracePointContext) -> bool {
    ctx.arg::<u64>(2) & USER_FAULT != 0
}

/// How to tell the current task at any tracepoint: by the address of the tracepoint's arguments, which the kernel puts
/// on its stack (`bpf_trace_run*` in `kernel/trace/bpf_trace.c`).
#[inline(always)]
pub fn running_task(ctx: &impl EbpfContext) -> Task {
    Task::Stack(ctx.as_ptr() as u64)
}

/// Who is charged for an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Payer {
    /// User pages: the owner of the task's memory.
    Memory = 0,
    /// Kernel memory: the task itself.
    Task = 1,
}

/// The owner charged for an allocation of the current task, which `task` identifies; the caller has read `generation`
/// before.
#[inline(always)]
pub fn owner(first: &Stock<MapWord>, task: Task, generation: u64, pays: Payer) -> u32 {
    first.owner_cache.known(task, generation).unwrap_or_else(|| {
        let registers = if let Task::Registers(registers) = task { registers } else { 0 };
        outlined::ask_owner(registers, pays as u32)
    })
}

/// What [`owner`] calls, out of line, if the answer is not remembered: asks the kernel.
#[inline(always)]
pub fn asked_owner(task: Task, pays: Payer) -> u32 {
    let generation = GENERATION.load();
    let Some(first) = STOCK.get(0) else {
        return NOBODY;
    };
    // SAFETY: the helper has no preconditions.
    let current = || unsafe { bpf_get_current_task() };
    first.owner_cache.owner(task, generation, current, || {
        let own = nearest_tracked(&Kernel, current_cgroup(), current_ancestor);
        let memorys = memory::foreign(current()).map_or(own, |mm| outlined::owner_of_memory(mm));
        Answer { owner: if pays == Payer::Task { own } else { memorys }, holds: own == memorys }
    })
}
