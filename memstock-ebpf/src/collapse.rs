//! The probe of collapses: huge pages that one task has put together in another's memory.
//!
//! Kernel prototypes (`include/trace/events/huge_memory.h`), of which the first argument is read:
//! `huge_memory:mm_collapse_huge_page` `(struct mm_struct *mm, int isolated, int status)` and, since Linux 6.2,
//! `huge_memory:mm_khugepaged_collapse_file` `(struct mm_struct *mm, struct folio *new_folio,
//! ..., int result)`. Both fire at the end, in the task that allocated the huge page, whether it could be used or not.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::collapse;

use crate::config;
use crate::folio;
use crate::machine::Kernel;
use crate::outlined;

/// Charges the huge page to the owner of the memory.
#[raw_tracepoint(tracepoint = "mm_collapse_huge_page")]
#[inline(always)]
pub fn collapsed(ctx: RawTracePointContext) -> i32 {
    let mm: u64 = ctx.arg(0);
    let owner = || outlined::owner_of_memory(mm);
    let is_file = |pfn| folio::is_file(config::page_of(pfn)).unwrap_or(false);
    collapse::collapsed(&Kernel, owner, is_file);
    0
}
