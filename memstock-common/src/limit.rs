//! Limits: setting them, the lease by which user space promises to enforce them, and throttling tasks until it does.

use crate::charge::Over;
use crate::control::{KEEP_LIMIT, Limits, Refusal, live};
use crate::world::Step;
use crate::{Counter, Machine, NO_LIMIT, Resource, Word, counter};

/// Sets the requested limits, all or none. Of two concurrent callers one is refused, where the kernel makes it wait for
/// `memcg_max_mutex`: each would mistake the limit that the other is trying for the old one.
///
/// # Errors
/// [`Refusal::Missing`]; [`Refusal::Setting`]; [`Refusal::Order`]; [`Refusal::Busy`] when the usage is higher than a
/// limit that would be lowered. The old limits then stand.
#[inline(always)]
pub fn set_limits<M: Machine>(machine: &M, asked: Limits) -> Result<u32, Refusal> {
    let counter = live(machine, asked.index)?;
    let setting = machine.setting();
    if !setting.replace(0, 1) {
        return Err(Refusal::Setting);
    }
    let set = set_both(counter, asked);
    setting.swap(0);
    counter.forget_huge(machine.memsw());
    set
}

#[inline(always)]
fn set_both<W: Word>(counter: &Counter<W>, asked: Limits) -> Result<u32, Refusal> {
    let old = [counter.memory_limit.load(), counter.memsw_limit.load()];
    let memory = if asked.memory == KEEP_LIMIT { old[0] } else { asked.memory };
    let memsw = if asked.memsw == KEEP_LIMIT { old[1] } else { asked.memsw };
    // A memory limit above the memory+swap limit would never be reached; no memory limit at all is fine.
    if memory != NO_LIMIT && memsw < memory {
        return Err(Refusal::Order);
    }
    if asked.force != 0 {
        counter.memory_limit.swap(memory);
        counter.memsw_limit.swap(memsw);
        return Ok(0);
    }
    // Lowering may be refused, so it comes first, and undoing it means raising the limit again.
    if memory <= old[0] {
        if !counter.memory.set_limit(&counter.memory_limit, memory) {
            return Err(Refusal::Busy);
        }
        if !counter.memsw.set_limit(&counter.memsw_limit, memsw) {
            counter.memory_limit.swap(old[0]);
            return Err(Refusal::Busy);
        }
    } else {
        if !counter.memsw.set_limit(&counter.memsw_limit, memsw) {
            return Err(Refusal::Busy);
        }
        counter.memory_limit.swap(memory);
    }
    Ok(0)
}

/// Returns when a lease that is renewed now ends, ns since boot.
#[inline(always)]
pub fn renew_lease<M: Machine>(machine: &M) -> u64 {
    machine.now() + LEASE_NS
}

/// How long a lease lasts after its last renewal, ns.
pub const LEASE_NS: u64 = 1_000_000_000;

/// Makes the next limit hit at a counter send its event at once: the last one has been dealt with.
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

/// How long a task is throttled at a fault that is charged by force, ns, times the cube of the pages above the limit.
///
/// User space needs about 100 us to hear of a limit hit and to freeze the tasks, in which time they would take a page
/// each 1.5 us; it needs milliseconds when a hypervisor has taken its CPU, and tens of milliseconds when others move
/// tasks between cgroups, which takes the same lock. The first forced charge is not throttled, so that its event is not
/// delayed either. The later user space is, the slower the tasks get, as with the kernel's `memory.high`
/// (`calculate_high_delay` in mm/memcontrol.c), whose penalty grows with the square; it may sleep. The sum up to n
/// pages is n⁴/12 us: 0.2 ms to 7 pages, and 2.8 ms to 13.
const THROTTLE_NS: u64 = 333;
/// Pages above the limit at which the throttle stops growing. There it is 0.9 ms, the longest that a CPU is stopped at
/// once: on x86 interrupts are off where a fault begins.
const MAX_THROTTLED: u64 = 14;

/// Waits, if the lease is valid and needed memory exceeds the limit: no task is to blame for page cache above it.
#[inline(always)]
pub(crate) fn throttle<M: Machine>(machine: &M, over: Over) {
    let now = machine.now();
    if now >= machine.lease_until() {
        return;
    }
    let Some(counter) = machine.counter(over.ancestor) else { return };
    let pages = needed_above(counter, over.resource, 0);
    if pages == 0 {
        return;
    }
    let pages = if pages < MAX_THROTTLED { pages } else { MAX_THROTTLED };
    let until = now + pages * pages * pages * THROTTLE_NS;
    machine.repeat(MAX_LOOKS, &mut Wait { machine, until });
}

/// Usage and limit of one resource.
#[inline(always)]
pub(crate) fn at<W: Word>(counter: &Counter<W>, resource: Resource) -> (&W, &W) {
    match resource {
        Resource::Memory => (&counter.memory.usage, &counter.memory_limit),
        Resource::Memsw => (&counter.memsw.usage, &counter.memsw_limit),
    }
}

/// [`needed_above`](counter::needed_above) the limit of a resource, stocked pages included, with `more` pages in
/// addition to those charged.
#[inline(always)]
pub(crate) fn needed_above<W: Word>(counter: &Counter<W>, resource: Resource, more: u32) -> u64 {
    let (usage, limit) = at(counter, resource);
    let usage = usage.load().wrapping_add(more.into());
    counter::needed_above(usage, counter.file.load(), limit.load(), counter.huge.load())
}

/// Reads of the clock while throttling, about 30 ns each. Guards against a clock that stands still.
const MAX_LOOKS: u32 = 65536;

struct Wait<'a, M> {
    machine: &'a M,
    until: u64,
}

impl<M: Machine> Step for Wait<'_, M> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        self.machine.now() < self.until
    }
}
