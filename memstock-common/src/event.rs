//! What the kernel half tells the user half, and nobody else: the records of the ring buffer.

use crate::{Loss, Machine, Resource, Word};

/// One record of the ring buffer `EVENTS`.
///
/// Integers only and no padding: it crosses the border as bytes. Counts are pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// An [`EventKind`].
    pub kind: u32,
    /// A [`Resource`].
    pub resource: u32,
    /// Time since boot, ns.
    pub time_ns: u64,
    /// The cgroup that was being charged, made or removed.
    pub cgroup_id: u64,
    /// The failing ancestor: the cgroup whose limit was reached.
    pub ancestor_id: u64,
    /// Pages that did not fit; of a CPU that is going or coming, those that were drained.
    pub nr_pages: u64,
    /// Usage of the failing ancestor, as it was read after the refusal.
    pub usage: u64,
    /// Limit of the failing ancestor.
    pub limit: u64,
    /// The CPU that is going or coming.
    pub cpu: u64,
}

const _: () = assert!(size_of::<Event>() == 64, "no implicit padding");

/// What an [`Event`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A batch did not fit under a limit: the early warning. One page is tried next.
    LimitNear = 1,
    /// Not even what was needed fitted; it was charged by force.
    LimitHit = 2,
    /// A cgroup was made, tracked or not. Only its id and the time are set.
    CgroupMade = 3,
    /// A cgroup was removed, tracked or not. Only its id and the time are set.
    CgroupRemoved = 4,
    /// A CPU is on its way down or up, one step of many; whether it is there, the user half looks up.
    /// Only its number, the pages drained and the time are set.
    CpuHotplug = 5,
    /// The kernel began to reclaim memory. Only the time is set.
    ReclaimBegan = 6,
}

/// Least time between two events of a kind about one thing, ns; those between are merged.
pub const EVENT_INTERVAL_NS: u64 = 1_000_000;
/// The same for a limit that only page cache is above: nothing is urgent about it, and it may last.
pub const CACHE_INTERVAL_NS: u64 = 100 * EVENT_INTERVAL_NS;

/// Whether an event may be sent `now`, the last one having been `sent`, at least `interval` before; the caller that is
/// told so is the only one, and sends it.
#[inline(always)]
pub fn may_send<W: Word>(sent: &W, now: u64, interval: u64) -> bool {
    let last = sent.load();
    // Another CPU may have sent since this one read the clock.
    (last == 0 || now.saturating_sub(last) >= interval) && sent.replace(last, now)
}

/// The kernel begins to reclaim memory, on any CPU: tells the user half, which drains. `sent` is when
/// it was told last.
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

/// A number that stands for nothing this version knows.
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
