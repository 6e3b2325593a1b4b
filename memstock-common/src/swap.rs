//! Swap: swapped-out pages stay charged to memory+swap. The kernel half does not see pages being swapped out; user
//! space looks at the tasks and reports how many there are.

use crate::charge::{add_memsw, sub_memsw};
use crate::control::{Refusal, live};
use crate::{Machine, Word};

/// Sets the number of pages that the cgroup's own tasks, not those of its descendants, have in swap. They count towards
/// memory+swap of the cgroup and its ancestors until the next call, regardless of limits.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn set_swapped<M: Machine>(machine: &M, index: u32, nr_pages: u64) -> Result<u32, Refusal> {
    let counter = live(machine, index)?;
    let before = counter.swapped.swap(nr_pages);
    // Apply only the difference, so that nobody sees room, or a peak, that never existed.
    if nr_pages > before {
        add_memsw(machine, index, nr_pages - before);
    } else {
        sub_memsw(machine, index, before - nr_pages);
    }
    Ok(0)
}
