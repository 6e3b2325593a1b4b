//! Whom to charge for memory: the kernel charges a page of user space to the task that owns the memory (`mm->owner`),
//! which may not be the task that runs.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use memstock_common::fault::nearest_tracked;
use memstock_common::key_of;
use memstock_common::layout::MemoryOwner;

use crate::cgroup::id_of;
use crate::config;
use crate::folio::read;
use crate::machine::Kernel;

/// The memory that `task` uses, if a task of another process owns it: `task` then shares it (`CLONE_VM`), as a child of
/// vfork(2) does until it execs.
#[inline(always)]
pub fn foreign(task: u64) -> Option<u64> {
    let offsets = config::memory_owner();
    if offsets == MemoryOwner::UNKNOWN {
        return None;
    }
    let mm = read(task, offsets.task_mm).filter(|&mm| mm != 0)?;
    let owner = read(mm, offsets.mm_owner)?;
    if owner == task || owner == 0 || owner == read(task, offsets.task_group_leader)? {
        return None;
    }
    Some(mm)
}

/// The flags of the current task (`PF_*`); none are known where its layout is not.
#[inline(always)]
pub fn task_flags() -> u64 {
    let offsets = config::memory_owner();
    if offsets == MemoryOwner::UNKNOWN {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    read(task, offsets.task_flags).unwrap_or(0)
}

/// The owner that memory is charged to: `get_mem_cgroup_from_mm` in `mm/memcontrol.c`, for our cgroups.
#[inline(always)]
pub fn owner_of(mm: u64) -> Option<u32> {
    let offsets = config::memory_owner();
    let task = read(mm, offsets.mm_owner).filter(|&task| task != 0)?;
    let css_set = read(task, offsets.task_cgroups)?;
    let cgroup = read(css_set, offsets.css_set_dfl_cgrp)?;
    // It is an int.
    let own_level = read(cgroup, offsets.cgroup_level)? as u32;
    let ancestor = |level| {
        if level > own_level {
            return 0;
        }
        let ancestor = read(cgroup, offsets.cgroup_ancestors + level * size_of::<u64>() as u32);
        ancestor.and_then(id_of).map_or(0, key_of)
    };
    Some(nearest_tracked(&Kernel, key_of(id_of(cgroup)?), ancestor))
}
