//! Reclaims memory of a subtree without killing anybody: by the kernel's own reclaim where it knows the cgroup,
//! otherwise by the advice that one process may give on the memory of others. Does not decide when.

mod cache;
mod kernel;
mod mappings;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;

pub use self::cache::Cache;
use super::task;
use crate::engine::needed::lineage;
use crate::engine::{Counters, Engine};
use crate::host;
use crate::host::cgroup::Cgroup;
use crate::journal::record::ReclaimMethod;

/// A request to reclaim.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Finds page cache.
    pub cache: &'a Cache,
    /// The cgroup to reclaim from.
    pub cgroup: &'a Cgroup,
    /// Its counter index.
    pub index: u32,
    /// How many pages.
    pub nr_pages: u64,
    /// Whether pages may go to swap; they must not if memory+swap is full.
    pub may_swap: bool,
    /// When to stop.
    pub deadline: Instant,
}

/// What one method reclaimed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reclaimed {
    /// The method does not apply, or found nothing.
    Nothing,
    /// Something; the change in usage says how much.
    Some,
    /// This many pages.
    Pages(u64),
}

impl Reclaimed {
    fn some(is_some: bool) -> Self {
        if is_some { Self::Some } else { Self::Nothing }
    }
}

/// The counter indices of `top` and of those below it.
pub fn subtree(counters: &Counters, top: u32) -> BTreeSet<u32> {
    let lineage = |index| lineage(|at| counters.parent(at), index);
    counters.indices().filter(|&index| lineage(index).any(|at| at == top)).collect()
}

/// Reclaims by one method.
///
/// # Errors
/// The method failed for a reason other than having nothing to reclaim.
pub fn reclaim(means: ReclaimMethod, request: &Request<'_>) -> Result<Reclaimed> {
    let has_swap = host::has_swap()?;
    let must_not_swap = has_swap && !request.may_swap;
    let request = Request { may_swap: has_swap && request.may_swap, ..*request };
    let tasks = || task::tasks(&request.cgroup.dir);
    match means {
        ReclaimMethod::MemoryReclaim => {
            kernel::memory_reclaim(&request, must_not_swap).map(Reclaimed::some)
        }
        // Other pages in such a mapping would go to swap.
        ReclaimMethod::Lazyfree if must_not_swap => Ok(Reclaimed::Nothing),
        ReclaimMethod::Lazyfree => Ok(Reclaimed::some(mappings::lazyfree(&tasks(), &request))),
        ReclaimMethod::Fadvise => cache::drop_clean(&request),
        ReclaimMethod::Pageout => Ok(Reclaimed::some(mappings::pageout(&tasks(), &request))),
    }
}

/// All methods in the order in which they are tried, cheapest to get back first.
pub const METHODS: [ReclaimMethod; 4] = [
    ReclaimMethod::MemoryReclaim,
    ReclaimMethod::Lazyfree,
    ReclaimMethod::Fadvise,
    ReclaimMethod::Pageout,
];
