//! The probe of collapses: huge pages that one task has put together in the memory of another.
//!
//! Kernel prototypes (`include/trace/events/huge_memory.h`), of which the first argument is read:
//! `huge_memory:mm_collapse_huge_page` `(struct mm_struct *mm, int isolated, int status)` and, since Linux 6.2 and in
//! stable kernels of 6.1,
//! `huge_memory:mm_khugepaged_collapse_file` `(struct mm_struct *mm, struct folio *new_folio, ..., int result)`,
//! both at the end, by the task that has allocated the huge page, whether it could be used or not.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::fault::nearest_tracked;
use memstock_common::{NOBODY, collapse, key_of};

use crate::cgroup::id_of;
use crate::config;
use crate::folio::{self, read};
use crate::machine::Kernel;

/// Charges the huge page to whom the memory belongs.
#[raw_tracepoint(tracepoint = "mm_collapse_huge_page")]
#[inline(always)]
pub fn collapsed(ctx: RawTracePointContext) -> i32 {
    let mm: u64 = ctx.arg(0);
    let owner = || owner_of(mm).unwrap_or(NOBODY);
    let is_file = |pfn| folio::is_file(config::page_of(pfn)).unwrap_or(false);
    collapse::collapsed(&Kernel, owner, is_file);
    0
}

/// Whom memory is charged to: `get_mem_cgroup_from_mm` in `mm/memcontrol.c`, with our cgroups.
#[inline(always)]
fn owner_of(mm: u64) -> Option<u32> {
    let offsets = config::memory_owner();
    let task = read(mm, offsets.mm_owner).filter(|&task| task != 0)?;
    let css_set = read(task, offsets.task_cgroups)?;
    let cgroup = read(css_set, offsets.css_set_dfl_cgrp)?;
    // An int.
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
