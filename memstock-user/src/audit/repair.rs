//! Owns the repair: moves pages that differ to the cgroups that the kernel charges. Must not change a counter except
//! through the pages it owns: a drift stays, because it is a defect that must be seen.

use anyhow::Result;

use super::compare::{differs, is_stale};
use crate::audit::adoption::{Moved, Page, Transfer, is_adoptable, to_adopt};
use crate::engine::Engine;
use crate::engine::kernel_cgroup::{PageScan, PageView, Tracked};

/// Takes pages from cgroups that do not own them in the kernel, then gives pages without an owner to the cgroups that
/// do. Where the kernel knows no cgroup, it takes free pages only.
///
/// `different` are the pages that differed, ascending. Each page is marked, checked again, and moved only if it still
/// differs and was neither allocated nor freed since.
pub(super) fn repair(
    engine: &Engine,
    tracked: &Tracked,
    scan: &PageScan,
    different: &[PageView],
) -> Result<Moved> {
    let transfer = Transfer::new(engine, tracked);
    let mut moved = take(&transfer, scan, different)?;
    let wanted: Vec<Page> = different
        .iter()
        .filter(|page| is_adoptable(page.kind))
        .filter_map(|page| Some(to_adopt(page, scan.map().counter(page.number)?)))
        .collect();
    moved.add(&transfer.adopt_as_kernel(scan, &wanted)?);
    Ok(moved)
}

/// Time for the kernel to charge a page that was allocated just before it was marked, which it does right after the
/// allocation. Otherwise the second look would still not see its owner.
const CHARGED: std::time::Duration = std::time::Duration::from_millis(50);

/// Takes pages from cgroups that do not own them.
fn take(transfer: &Transfer<'_>, scan: &PageScan, different: &[PageView]) -> Result<Moved> {
    // A page of a cgroup that the kernel does not know is wrong only if it is free.
    let is_known = |page: &&PageView| scan.map().knows(page.index) || is_stale(page);
    let owned = different.iter().filter(is_known).map(|page| to_adopt(page, page.index));
    let owned: Vec<_> = owned.collect();
    transfer.doubt(&owned)?;
    std::thread::sleep(CHARGED);
    let pfns: Vec<u64> = owned.iter().map(|page| page.pfn).collect();
    let wrong: Vec<_> = scan
        .again(&pfns)?
        .iter()
        .filter(is_known)
        .filter(|page| differs(scan.map(), page))
        .map(|page| to_adopt(page, page.index))
        .collect();
    Ok(Moved { disowned: transfer.disown(&wrong)?, ..Moved::default() })
}
