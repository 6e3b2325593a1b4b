//! The probes of page migration: at the kernel's function, since no tracepoint has both pages; and where functions
//! cannot be traced, at the tracepoint that has only the number of pages.
//!
//! Kernel prototype (`mm/memcontrol.c`): `mem_cgroup_migrate(struct folio *old, struct folio *new)`, after the contents
//! were moved to the new folio, with both locked. Every kernel with CONFIG_MEMCG has it, and calls it even if the
//! controller is not mounted.

use aya_ebpf::macros::{fentry, raw_tracepoint};
use aya_ebpf::programs::{FEntryContext, RawTracePointContext};
use memstock_common::{Loss, World, migrate};

use crate::config;
use crate::folio;
use crate::machine::Kernel;
use crate::typed::Typed;

/// Moves the owners along with the pages.
#[fentry(function = "mem_cgroup_migrate")]
pub fn migrated(ctx: FEntryContext) -> i32 {
    let [old, new] = [0, 1].map(|index| Typed::argument(&ctx, index).address());
    if let Some(nr_pages) = folio::nr_pages(old) {
        migrate::migrated(&Kernel, config::pfn_of(old), config::pfn_of(new), nr_pages);
    }
    0
}

/// Counts pages that move unseen. Attached only where `migrated` cannot be.
///
/// Kernel prototype (`include/trace/events/migrate.h`): `(unsigned long succeeded, ...)`, in small pages, after a list of
/// pages was moved.
#[raw_tracepoint(tracepoint = "mm_migrate_pages")]
#[inline(always)]
pub fn moved_unseen(ctx: RawTracePointContext) -> i32 {
    Kernel.lose(Loss::MovedUnseen, ctx.arg(0));
    0
}
