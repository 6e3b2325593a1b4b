//! What the kernel half tells the user half: the records of the ring buffer.

use crate::{Loss, Machine, Resource, Word};

/// One record of the ring buffer `EVENTS`.
///
/// Integers only and no padding: the user half reads it as bytes. Counts are pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// An [`EventKind`].
    pub kind: u32,
    /// A [`Resource`].
    pub resource: u32,
    /// Time since boot, ns.
    pub time_ns: u64,
    /// The cgroup that was charged, made or removed.
    pub cgroup_id: u64,
    /// The cgroup whose limit was reached: `cgroup_id` or an ancestor of it.
    pub ancestor_id: u64,
    /// Pages that did not fit; for a hotplug step, the pages drained.
    pub nr_pages: u64,
    /// Usage of that cgroup, read after the refusal.
    pub usage: u64,
    /// Limit of that cgroup.
    pub limit: u64,
    /// The CPU that is going down or coming up.
    pub cpu: u64,
}

const _: () = assert!(size_of::<Event>() == 64, "no implicit padding");

/// What an [`Event`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A batch did not fit under a limit: the early warning. A smaller charge is tried next.
    LimitNear = 1,
    /// Not even the pages needed fitted; they were charged by force.
    LimitHit = 2,
    /// A cgroup was made, tracked or not. Only its id and the time are set.
    CgroupMade = 3,
    /// A cgroup was removed, tracked or not. Only its id and the time are set.
    CgroupRemoved = 4,
    /// A CPU went one of many steps down or up; the user half looks up whether it is online. Only its number, the pages
    /// drained and the time are set.
    CpuHotplug = 5,
    /// The kernel began to reclaim memory. Only the time is set.
    ReclaimBegan = 6,
}

/// Least time between two events of one kind about the same thing, ns; those in between are merged.
pub const EVENT_INTERVAL_NS: u64 = 1_000_000;
/// The same for a limit that only page cache exceeds: that is not urgent, and may last.
pub const CACHE_INTERVAL_NS: u64 = 100 * EVENT_INTERVAL_NS;

/// Whether an event may be sent `now`: the last one was `sent` at least `interval` before. Returns true to only one
/// caller, which must send it.
#[inline(always)]
pub fn may_send<W: Word>(sent: &W, now: u64, interval: u64) -> bool {
    let last = sent.load();
    // Another CPU may have sent since this one read the clock.
    (last == 0 || now.saturating_sub(last) >= interval) && sent.replace(last, now)
}

/// The kernel begins to reclaim memory, on any CPU: tells the user half, which drains. `sent` is when it was last told.
#[inline(always)]
pub fn reclaim_began<M: Machine>(machine: &M, sent: &M::Word) {
    let time_ns = machine.now();
    if may_send(sent, time_ns, EVENT_INTERVAL_NS) {
        let kind = EventKind::ReclaimBegan as u32;
        machine.emit(&Event { kind, time_ns, ..Event::default() });
    } else {
        machine.lose(Loss::ReclaimsMerged, 1);
    }
}

/// A tag that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown(pub u32);

impl core::fmt::Display for Unknown {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "unknown tag {}", self.0)
    }
}

impl TryFrom<u32> for EventKind {
    type Error = Unknown;
    fn try_from(tag: u32) -> Result<Self, Unknown> {
        match tag {
            1 => Ok(Self::LimitNear),
            2 => Ok(Self::LimitHit),
            3 => Ok(Self::CgroupMade),
            4 => Ok(Self::CgroupRemoved),
            5 => Ok(Self::CpuHotplug),
            6 => Ok(Self::ReclaimBegan),
            _ => Err(Unknown(tag)),
        }
    }
}

impl TryFrom<u32> for Resource {
    type Error = Unknown;
    fn try_from(tag: u32) -> Result<Self, Unknown> {
        match tag {
            0 => Ok(Self::Memory),
            1 => Ok(Self::Memsw),
            _ => Err(Unknown(tag)),
        }
    }
}
