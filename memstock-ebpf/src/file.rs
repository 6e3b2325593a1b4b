//! The probe of the page cache.
//!
//! Kernel prototype (`filemap:mm_filemap_add_to_page_cache`, `include/trace/events/filemap.h`): `(struct folio *folio)`
//! since Linux 5.16, with the folio locked and in its mapping. Shared memory (tmpfs, memfd) does not pass here; huge pages
//! of hugetlbfs do.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use memstock_common::file::{self, Folio};
use memstock_common::{NOBODY, Word};

use crate::config;
use crate::folio;
use crate::machine::Kernel;
use crate::maps::{GENERATION, STOCK};
use crate::payer::{Payer, owner, running_task};
use crate::typed::Typed;

/// Marks pages as page cache, and charges those that have no owner yet.
#[btf_tracepoint(function = "mm_filemap_add_to_page_cache")]
#[inline(always)]
pub fn file_added(ctx: BtfTracePointContext) -> i32 {
    let added = Added { folio: Typed::argument(&ctx, 0), ctx: &ctx };
    file::added(&Kernel, config::pfn_of(added.folio.address()), &added);
    0
}

struct Added<'a> {
    folio: Typed,
    ctx: &'a BtfTracePointContext,
}

impl Folio for Added<'_> {
    #[inline(always)]
    fn extent(&self) -> Option<(u32, bool)> {
        folio::extent(self.folio)
    }

    #[inline(always)]
    fn is_charged(&self) -> bool {
        folio::is_charged(self.folio).unwrap_or(false)
    }

    #[inline(always)]
    fn owner(&self) -> u32 {
        let generation = GENERATION.load();
        let Some(first) = STOCK.get(0) else {
            return NOBODY;
        };
        owner(first, running_task(self.ctx), generation, Payer::Memory)
    }
}
