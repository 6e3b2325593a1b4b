//! Swap: swapped-out pages stay charged to memory+swap. The kernel half does not see them go; user
//! space looks at the tasks and says how many they are.

use crate::charge::{add_memsw, sub_memsw};
use crate::control::{Refusal, live};
use crate::{Machine, Word};

/// Says that the tasks of a cgroup itself, not of those below it, have `nr_pages` in swap. They count
/// with memory+swap of it and all above it until told otherwise, whatever the limits.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn set_swapped<M: Machine>(machine: &M, index: u32, nr_pages: u64) -> Result<u32, Refusal> {
    let counter = live(machine, index)?;
    let before = counter.swapped.swap(nr_pages);
    // Only what it changed by: nobody else finds room, or a peak, that never was.
    if nr_pages > before {
        add_memsw(machine, index, nr_pages - before);
    } else {
        sub_memsw(machine, index, before - nr_pages);
    }
    Ok(0)
}
