//! Charging and uncharging up the hierarchy: all levels or none, memory before memory+swap.

use crate::event::{CACHE_INTERVAL_NS, EVENT_INTERVAL_NS, EventKind, may_send};
use crate::limit::{at, needed_above};
use crate::{Counters, Event, Loss, Machine, NO_INDEX, NO_LIMIT, Word};

/// Which of the two limits of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Resource {
    /// Memory.
    Memory = 0,
    /// Memory and swap together.
    Memsw = 1,
}

impl Resource {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Memory, Self::Memsw];

    /// What output and the configuration call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Memsw => "memsw",
        }
    }
}

/// The counter that refused a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Index of the counter that refused: an ancestor's, or the cgroup's own.
    pub ancestor: u32,
    /// The limit that was reached.
    pub resource: Resource,
}

impl Over {
    /// Packs a result into one register; 0 is success.
    #[inline(always)]
    pub const fn to_bits(charged: Result<(), Self>) -> u64 {
        match charged {
            Ok(()) => 0,
            Err(over) => (over.ancestor as u64) << 2 | (over.resource as u64) << 1 | 1,
        }
    }

    /// Unpacks it.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Result<(), Self> {
        if bits == 0 {
            return Ok(());
        }
        let resource = if bits & 2 == 0 { Resource::Memory } else { Resource::Memsw };
        Err(Self { ancestor: (bits >> 2) as u32, resource })
    }
}

/// How a miss got its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// A whole batch was charged: the pages needed, and the rest to stock.
    Batch,
    /// The batch did not fit; the pages needed did.
    Single(Over),
    /// Not even those fitted; they were charged all the same, because an allocation that was made cannot be refused.
    Forced(Over),
}

/// Calls `visit` for `leaf` and each of its ancestors up to, not including, `end`.
///
/// Stops early when `visit` returns false, and returns the index where it stopped.
#[inline(always)]
pub(crate) fn walk<C: Counters>(
    counters: &C,
    leaf: u32,
    end: u32,
    mut visit: impl FnMut(&crate::Counter<C::Word>) -> bool,
) -> Option<u32> {
    let (mut at, mut level) = (leaf, 0);
    // Read the bound at each level: kept in a register, it may be spilled, and the verifier then loses its value.
    while level < counters.max_depth() {
        if at == end {
            return None;
        }
        let counter = counters.counter(at)?;
        // Before the visit: once its last page is uncharged, a dying counter may be reused.
        let above = counter.parent();
        if !visit(counter) {
            return Some(at);
        }
        at = above;
        level += 1;
    }
    None
}

/// Charges `nr_pages` to `leaf` and all its ancestors, or to none of them.
///
/// The patch's order: memory all the way up, then memory+swap, whose failure takes memory back (`res_counter_charge` of
/// `mem->res`, then `mem->memsw`). Watermarks are raised only after every level has accepted. The kernel raises them on
/// the way up, so a batch refused further up stays visible below as a peak that never existed.
///
/// # Errors
/// The nearest ancestor that is over its limit.
#[inline(always)]
pub fn try_charge<C: Counters>(counters: &C, leaf: u32, nr_pages: u64) -> Result<(), Over> {
    let refused = walk(counters, leaf, NO_INDEX, |c| {
        c.memory.try_charge(nr_pages, &c.memory_limit, &c.huge) || c.forget_huge(counters.memsw())
    });
    if let Some(ancestor) = refused {
        uncharge_memory(counters, leaf, ancestor, nr_pages);
        return Err(Over { ancestor, resource: Resource::Memory });
    }
    if counters.memsw() {
        let refused = walk(counters, leaf, NO_INDEX, |c| {
            c.memsw.try_charge(nr_pages, &c.memsw_limit, &c.huge) || c.forget_huge(true)
        });
        if let Some(ancestor) = refused {
            walk(counters, leaf, ancestor, |c| {
                c.memsw.uncharge(nr_pages);
                true
            });
            uncharge_memory(counters, leaf, NO_INDEX, nr_pages);
            return Err(Over { ancestor, resource: Resource::Memsw });
        }
    }
    walk(counters, leaf, NO_INDEX, |c| {
        let huge = c.huge.load();
        c.raise_memory_watermarks(nr_pages, c.memory_limit.load().saturating_add(huge));
        if counters.memsw() {
            c.memsw.raise_watermark(c.memsw_limit.load().saturating_add(huge));
        }
        true
    });
    Ok(())
}

#[inline(always)]
fn uncharge_memory<C: Counters>(counters: &C, leaf: u32, end: u32, nr_pages: u64) {
    walk(counters, leaf, end, |c| {
        c.memory.uncharge(nr_pages);
        c.forget_huge(counters.memsw());
        true
    });
}

/// Takes back the part of [`add_usage`] that was not used.
#[inline(always)]
pub(crate) fn sub_usage<C: Counters>(counters: &C, leaf: u32, nr_pages: u64) {
    walk(counters, leaf, NO_INDEX, |c| {
        c.memory.uncharge(nr_pages);
        if counters.memsw() {
            c.memsw.uncharge(nr_pages);
        }
        c.forget_huge(counters.memsw());
        true
    });
}

/// Charges `nr_pages` to `leaf` and its ancestors regardless of limits: `page_counter_charge`.
#[inline(always)]
pub fn charge_forced<C: Counters>(counters: &C, leaf: u32, nr_pages: u64) {
    walk(counters, leaf, NO_INDEX, |c| {
        c.charge_memory(nr_pages);
        if counters.memsw() {
            c.memsw.charge(nr_pages);
        }
        true
    });
}

/// Like [`charge_forced`], but leaves the watermarks alone: part of it is about to be taken back.
#[inline(always)]
pub(crate) fn add_usage<C: Counters>(counters: &C, leaf: u32, nr_pages: u64) {
    walk(counters, leaf, NO_INDEX, |c| {
        c.memory.usage.fetch_add(nr_pages);
        if counters.memsw() {
            c.memsw.usage.fetch_add(nr_pages);
        }
        true
    });
}

/// Adds to memory+swap alone, regardless of limits.
#[inline(always)]
pub(crate) fn add_memsw<C: Counters>(counters: &C, leaf: u32, nr_pages: u64) {
    walk(counters, leaf, NO_INDEX, |c| {
        c.memsw.charge(nr_pages);
        true
    });
}

/// Subtracts from memory+swap alone.
#[inline(always)]
pub(crate) fn sub_memsw<C: Counters>(counters: &C, leaf: u32, nr_pages: u64) {
    walk(counters, leaf, NO_INDEX, |c| {
        c.memsw.uncharge(nr_pages);
        c.forget_huge(true);
        true
    });
}

/// Raises the watermarks of `leaf` and its ancestors to their usage, limit or not.
#[inline(always)]
pub(crate) fn raise_watermarks<C: Counters>(counters: &C, leaf: u32) {
    walk(counters, leaf, NO_INDEX, |c| {
        c.raise_memory_watermarks(0, NO_LIMIT);
        if counters.memsw() {
            c.memsw.raise_watermark(NO_LIMIT);
        }
        true
    });
}

/// Uncharges `nr_pages` from `leaf` and its ancestors: `page_counter_uncharge`.
///
/// With [`NO_INDEX`] as `leaf` it does nothing.
#[inline(always)]
pub fn uncharge<C: Counters>(counters: &C, leaf: u32, nr_pages: u64) {
    walk(counters, leaf, NO_INDEX, |c| {
        c.uncharge_memory(nr_pages);
        if counters.memsw() {
            c.memsw.uncharge(nr_pages);
        }
        c.forget_huge(counters.memsw());
        true
    });
}

/// Adds to the page cache of `leaf` and its ancestors.
#[inline(always)]
pub fn change_file<C: Counters>(counters: &C, leaf: u32, change: i32) {
    walk(counters, leaf, NO_INDEX, |c| {
        c.change_file(change);
        true
    });
}

/// The number of levels from `leaf` to the top.
#[inline(always)]
pub(crate) fn levels<C: Counters>(counters: &C, leaf: u32) -> u32 {
    let mut levels = 0;
    walk(counters, leaf, NO_INDEX, |_| {
        levels += 1;
        true
    });
    levels
}

/// Whether the counter `index` is `ancestor` or below it. Everything is below [`NO_INDEX`].
#[inline(always)]
pub fn is_in_subtree<C: Counters>(counters: &C, index: u32, ancestor: u32) -> bool {
    let (mut at, mut level) = (index, 0);
    while ancestor != NO_INDEX && level < counters.max_depth() {
        if at == ancestor {
            return true;
        }
        match counters.counter(at) {
            Some(counter) => at = counter.parent(),
            None => return false,
        }
        level += 1;
    }
    ancestor == NO_INDEX
}

/// Charges `nr_pages` to `leaf`: as part of a `batch`, alone, or by force. A batch is no smaller than the pages needed.
///
/// Sends an event for each refusal; for a batch that did not fit it is an early warning. Returns the limit that refused
/// ([`Over::to_bits`]) if user space was told about it before, so that it is time to wait; else 0.
#[inline(always)]
pub fn charge<M: Machine>(machine: &M, leaf: u32, nr_pages: u32, batch: u32) -> (Charge, u64) {
    let near = match machine.try_charge(leaf, batch) {
        Ok(()) => return (Charge::Batch, 0),
        Err(over) => over,
    };
    let is_one = nr_pages == 1;
    if batch > nr_pages || !is_one {
        announce(machine, EventKind::LimitNear, leaf, near, batch);
    }
    let over = if batch > nr_pages {
        match machine.try_charge(leaf, nr_pages) {
            Ok(()) => return (Charge::Single(near), 0),
            Err(over) => over,
        }
    } else {
        near
    };
    match if is_one { Err(over) } else { machine.charge_huge(leaf, nr_pages) } {
        Ok(()) => (Charge::Forced(over), 0),
        Err(over) => force(machine, leaf, over, nr_pages),
    }
}

#[inline(always)]
fn force<M: Machine>(machine: &M, leaf: u32, over: Over, nr_pages: u32) -> (Charge, u64) {
    let is_news = announce(machine, EventKind::LimitHit, leaf, over, nr_pages);
    machine.charge_forced(leaf, nr_pages);
    // A number instead of an `Option`: the compiler may read the unset part of one, which the verifier refuses.
    (Charge::Forced(over), if is_news { 0 } else { Over::to_bits(Err(over)) })
}

/// Sends an event; false if it was merged into an earlier one.
#[inline(always)]
fn announce<M: Machine>(
    machine: &M,
    kind: EventKind,
    leaf: u32,
    over: Over,
    nr_pages: u32,
) -> bool {
    let (Some(counter), Some(charged)) = (machine.counter(over.ancestor), machine.counter(leaf))
    else {
        return false;
    };
    let sent = match kind {
        EventKind::LimitNear => &counter.near_at,
        _ => &counter.hit_at,
    };
    let now = machine.now();
    let is_cache =
        kind == EventKind::LimitHit && needed_above(counter, over.resource, nr_pages) == 0;
    let interval = if is_cache { CACHE_INTERVAL_NS } else { EVENT_INTERVAL_NS };
    if !may_send(sent, now, interval) {
        machine.lose(Loss::EventsMerged, 1);
        return false;
    }
    let (usage, limit) = at(counter, over.resource);
    machine.emit(&Event {
        kind: kind as u32,
        resource: over.resource as u32,
        time_ns: now,
        cgroup_id: charged.id.load(),
        ancestor_id: counter.id.load(),
        nr_pages: nr_pages as u64,
        usage: usage.load(),
        limit: limit.load(),
        ..Event::default()
    });
    true
}
