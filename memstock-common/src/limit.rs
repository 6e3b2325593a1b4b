//! Limits: setting them, and who sees to it that they hold. The bodies of the control programs for it.

use crate::control::{Refusal, live};
use crate::{Machine, NO_LIMIT, Resource, Word};

/// Sets a limit in pages, or lifts it with [`NO_LIMIT`].
///
/// # Errors
/// [`Refusal::Missing`]; [`Refusal::Busy`] when the usage is higher; the old limit then stands.
#[inline(always)]
pub fn set_limit<M: Machine>(
    machine: &M,
    index: u32,
    resource: Resource,
    nr_pages: u64,
) -> Result<u32, Refusal> {
    let counter = live(machine, index)?;
    let set = match resource {
        Resource::Memory => counter.memory.set_limit(&counter.memory_limit, nr_pages),
        Resource::Memsw => counter.memsw.set_limit(&counter.memsw_limit, nr_pages),
    };
    if set || nr_pages == NO_LIMIT { Ok(0) } else { Err(Refusal::Busy) }
}

/// Says until when user space acts on limits that are met, at most [`ATTENDANCE_NS`] from now.
#[inline(always)]
pub fn attend<M: Machine>(machine: &M) -> u64 {
    machine.now() + ATTENDANCE_NS
}

/// How long user space is taken to be there after it last said so, ns.
pub const ATTENDANCE_NS: u64 = 1_000_000_000;

/// Has the next limit that is met at a counter announced at once: the last one has been dealt with.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn rearm<M: Machine>(machine: &M, index: u32) -> Result<u32, Refusal> {
    let counter = live(machine, index)?;
    counter.near_at.swap(0);
    counter.hit_at.swap(0);
    Ok(0)
}

/// Sets a limit in pages even below the usage: nothing is charged any more but by force until it has fallen.
///
/// # Errors
/// [`Refusal::Missing`].
#[inline(always)]
pub fn force_limit<M: Machine>(
    machine: &M,
    index: u32,
    resource: Resource,
    nr_pages: u64,
) -> Result<u32, Refusal> {
    let counter = live(machine, index)?;
    let limit = match resource {
        Resource::Memory => &counter.memory_limit,
        Resource::Memsw => &counter.memsw_limit,
    };
    limit.swap(nr_pages);
    Ok(0)
}
