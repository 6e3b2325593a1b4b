//! The probe of the page cache.
//!
//! Kernel prototype (`filemap:mm_filemap_add_to_page_cache`, `include/trace/events/filemap.h`): `(struct folio *folio)`
//! since Linux 5.16, with the folio locked and in its mapping. Shared memory (tmpfs, memfd) does not pass here.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::file;

use crate::config;
use crate::folio::{is_evictable, nr_pages};
use crate::machine::Kernel;

/// Marks the pages of a cgroup that are page cache.
#[raw_tracepoint(tracepoint = "mm_filemap_add_to_page_cache")]
#[inline(always)]
pub fn file_added(ctx: RawTracePointContext) -> i32 {
    let folio: u64 = ctx.arg(0);
    let pages = || {
        let can_go = is_evictable(folio).unwrap_or(false);
        if can_go { nr_pages(folio) } else { None }
    };
    file::added(&Kernel, config::pfn_of(folio), pages);
    0
}
