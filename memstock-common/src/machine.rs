//! What the algorithm asks of the world it runs in: the kernel maps, loom, or plain memory.

use crate::{CgroupCpu, Counter, Event, Loss, Stock, Word};

/// Access to the shared counters.
pub trait Counters {
    /// The memory that counters are made of.
    type Word: Word;

    /// The counter at `index`, if the map has one.
    fn counter(&self, index: u32) -> Option<&Counter<Self::Word>>;

    /// Whether memory+swap is charged as well.
    fn memsw(&self) -> bool;

    /// [`MAX_DEPTH`](crate::MAX_DEPTH), by a road that the compiler does not see through but the
    /// BPF verifier does: a walk is then a bounded loop instead of sixteen copies of its body.
    fn max_depth(&self) -> u32;
}

/// Everything that a miss, a drain or a control program needs, on the CPU that runs it.
pub trait Machine: Counters {
    /// Index of the counter of the tracked cgroup named `owner`.
    fn tracked(&self, owner: u32) -> Option<u32>;

    /// Makes `owner` a tracked cgroup; false if it cannot be (taken, or no room).
    fn track(&self, owner: u32, index: u32) -> bool;

    /// Makes `owner` an untracked cgroup again.
    fn untrack(&self, owner: u32);

    /// A number that changes each time a cgroup becomes tracked or untracked, a task is born or one
    /// is moved.
    fn generation(&self) -> u64;

    /// Changes the generation.
    fn next_generation(&self);

    /// The share of this CPU in the statistics of the cgroup with counter `index`.
    fn cgroup_cpu(&self, index: u32) -> Option<&CgroupCpu<Self::Word>>;

    /// The slot `slot` of the stock of `cpu`, if there is such a CPU and slot.
    fn stock_of(&self, cpu: u32, slot: u32) -> Option<&Stock<Self::Word>>;

    /// The share of `cpu` in the statistics of the cgroup with counter `index`.
    fn cgroup_cpu_of(&self, index: u32, cpu: u32) -> Option<&CgroupCpu<Self::Word>>;

    /// Pages charged at once on a miss.
    fn batch(&self) -> u32;

    /// Time since boot, ns.
    fn now(&self) -> u64;

    /// Hands an event to user space, or counts it as lost.
    fn emit(&self, event: &Event);

    /// Adds to a loss counter.
    fn lose(&self, loss: Loss, count: u64);
}
