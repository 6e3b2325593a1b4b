//! Owns the repair: moves pages that differ to where the kernel has them. Must not touch a counter but
//! through the pages it owns: a drift stays, for it is a defect that must be seen.

use anyhow::Result;

use super::compare::{differs, is_stale};
use crate::audit::adoption::{Moved, Page, Transfer, is_adoptable, to_adopt};
use crate::engine::Engine;
use crate::engine::kernel_cgroup::{Look, Seen, Tracked};

/// Takes pages from cgroups that do not have them by the kernel, and gives those that nobody owns then
/// to the cgroups that do. Where the kernel knows no cgroup: takes what is free.
///
/// `different` is what differed when it was looked at, ascending. Each page is marked, looked at again,
/// and moved only if it still differs and was neither allocated nor freed since.
pub(super) fn repair(
    engine: &Engine,
    tracked: &Tracked,
    look: &Look,
    different: &[Seen],
) -> Result<Moved> {
    let transfer = Transfer::new(engine, tracked);
    let mut moved = take(&transfer, look, different)?;
    let wanted: Vec<Page> = different
        .iter()
        .filter(|page| is_adoptable(page.kind))
        .filter_map(|page| Some(to_adopt(page, look.map().counter(page.number)?)))
        .collect();
    moved.add(&transfer.adopt_as_kernel(look, &wanted)?);
    Ok(moved)
}

/// Time for a page that was allocated just before it was doubted to be charged by the kernel as well,
/// which comes right after: else the second look would still not see whose it is.
const CHARGED: std::time::Duration = std::time::Duration::from_millis(50);

/// Takes the pages that do not belong to their owners.
fn take(transfer: &Transfer<'_>, look: &Look, different: &[Seen]) -> Result<Moved> {
    // What belongs to a cgroup that the kernel does not know is judged by one thing only: that it is free.
    let is_known = |page: &&Seen| look.map().knows(page.index) || is_stale(page);
    let owned = different.iter().filter(is_known).map(|page| to_adopt(page, page.index));
    let owned: Vec<_> = owned.collect();
    transfer.doubt(&owned)?;
    std::thread::sleep(CHARGED);
    let pfns: Vec<u64> = owned.iter().map(|page| page.pfn).collect();
    let wrong: Vec<_> = look
        .again(&pfns)?
        .iter()
        .filter(is_known)
        .filter(|page| differs(look.map(), page))
        .map(|page| to_adopt(page, page.index))
        .collect();
    Ok(Moved { disowned: transfer.disown(&wrong)?, ..Moved::default() })
}
