//! Takes memory back from a subtree without killing anybody: by the kernel's own reclaim where it knows
//! the cgroup, else by what a process may ask of the memory of others. Must not decide when.

mod files;
mod kernel;
mod mappings;

use anyhow::Result;

use self::kernel::Controller;
use super::task;
use super::undo::Undo;
use crate::cgroup::Cgroup;
use crate::host;
use crate::journal::record::Means;
use crate::kernel_cgroup::KernelCgroups;
use std::cell::RefCell;

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
pub fn reclaim(
    means: Means,
    cgroup: &Cgroup,
    kernel: &KernelCgroups,
    undo: Option<&RefCell<Undo>>,
    wish: Wish,
) -> Result<bool> {
    let has_swap = host::has_swap()?;
    let must_not_swap = has_swap && !wish.may_swap;
    let wish = Wish { may_swap: has_swap && wish.may_swap, ..wish };
    match means {
        // What it reclaims goes to swap if the kernel thinks so: that frees nothing of memory and swap.
        Means::LimitInBytes if must_not_swap => Ok(false),
        Means::MemoryReclaim => kernel::memory_reclaim(cgroup, wish),
        Means::LimitInBytes => match (Controller::of(kernel, cgroup), undo) {
            (Some(controller), Some(undo)) => controller.squeeze(undo, wish),
            _ => Ok(false),
        },
        Means::Pageout => Ok(mappings::pageout(&task::tasks(&cgroup.dir), wish)),
        Means::Fadvise => Ok(files::drop_cached(&task::pids(&cgroup.dir))),
    }
}

/// All of them, in the order in which they are tried.
pub const MEANS: [Means; 4] =
    [Means::MemoryReclaim, Means::LimitInBytes, Means::Fadvise, Means::Pageout];
