//! Takes memory back from a subtree without killing anybody: by the kernel's own reclaim where it knows
//! the cgroup, else by what a process may ask of the memory of others. Must not decide when.

mod files;
mod kernel;
mod mappings;

use anyhow::Result;

use super::task;
use crate::cgroup::Cgroup;
use crate::host;
use crate::journal::record::Means;

/// What is wanted of a reclaim.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Pages.
    pub nr_pages: u64,
    /// Whether pages may go to swap. They must not where memory+swap is what is full.
    pub may_swap: bool,
}

/// The means that there are for one cgroup, the surest first. A `false` says that one does not apply.
///
/// # Errors
/// A means that is there failed for another reason than that nothing could be reclaimed.
pub fn reclaim(means: Means, cgroup: &Cgroup, wish: Wish) -> Result<bool> {
    let wish = Wish { may_swap: host::has_swap()? && wish.may_swap, ..wish };
    match means {
        Means::MemoryReclaim => kernel::memory_reclaim(cgroup, wish),
        Means::Pageout => Ok(mappings::pageout(&task::tasks(&cgroup.dir), wish)),
        Means::Fadvise => Ok(files::drop_cached(&task::pids(&cgroup.dir))),
    }
}

/// All of them, in the order in which they are tried.
pub const MEANS: [Means; 3] = [Means::MemoryReclaim, Means::Fadvise, Means::Pageout];
