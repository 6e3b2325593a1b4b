//! A second look at each allocation, for kernels that can preempt the program that takes the first.
//!
//! The kernel does not run a program inside itself on one CPU. Since Linux 7.0 a program can be preempted, and other
//! tasks' allocations and frees on that CPU then skip it. A second program on the same tracepoint, attached after the
//! first, is not running at that time: it sees what the first one missed, and does nothing where the first one ran. An
//! event is lost only while both are in the middle of a run.
//!
//! Once [`freed`] has run, the page has no owner, so the second look at a free finds nothing; except in a block with too
//! many owners, where it goes on with those that the first one left.

use crate::page::{Entry, freed};
use crate::{Machine, NOBODY};

/// Whether the first look has missed an allocation that the kernel charges: its first page has no owner. Outside the
/// page-owner map there is nothing to see.
#[inline(always)]
pub fn is_unseen<M: Machine>(machine: &M, pfn: u64) -> bool {
    machine.chunk(pfn).is_some_and(|chunk| chunk.entry(pfn).load() == NOBODY)
}

/// Does what [`freed`] does if that has not seen this free. Frees outside the page-owner map are left to the first look,
/// which counts them.
#[inline(always)]
pub fn freed_unseen<M: Machine>(machine: &M, pfn: u64, order: u32) {
    if machine.chunk(pfn).is_some() {
        freed(machine, pfn, order);
    }
}
