//! The second look at an allocation, for kernels that preempt the program which has the first.
//!
//! The kernel does not run a program inside itself on one CPU. Since Linux 7.0 a program can be preempted, and then its
//! runs for whatever other tasks allocate and free on that CPU are skipped. A second program at the same tracepoint,
//! attached behind the first, is not running meanwhile: it sees what the first has not, and has nothing to do where that
//! has been. What both are in the midst of is lost.
//!
//! Frees need no rule of their own: where [`freed`](crate::page::freed) has been, a page has no owner.

use crate::page::{Entry, allocated};
use crate::{Machine, NOBODY, Stock};

/// What [`allocated`] does, if that has not seen this allocation: none of its owners are known. One that the kernel does
/// not charge is left to the first look alone.
#[inline(always)]
pub fn allocated_unseen<'a, M: Machine>(
    machine: &M,
    pfn: u64,
    order: u32,
    is_charged: bool,
    is_compound: bool,
    ask: impl FnOnce() -> (u32, Option<&'a Stock<M::Word>>),
) where
    M::Word: 'a,
{
    let is_seen = machine.chunk(pfn).is_none_or(|chunk| chunk.entry(pfn).load() != NOBODY);
    if is_charged && !is_seen {
        allocated(machine, pfn, order, is_charged, is_compound, ask);
    }
}
