//! What the algorithm asks of the world it runs in: the kernel maps, loom, or plain memory.

use crate::{CgroupCpu, Chunk, Counter, Entry, Event, Loss, Stock, Word};

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
pub trait World: Counters {
    /// What the page-owner map is made of.
    type Entry: Entry;

    /// Index of the counter of the tracked cgroup with this [`key_of`](crate::key_of) its id.
    fn tracked(&self, key: u32) -> Option<u32>;

    /// Makes it a tracked cgroup; false if it cannot be (taken, or no room).
    fn track(&self, key: u32, index: u32) -> bool;

    /// Makes it an untracked cgroup again.
    fn untrack(&self, key: u32);

    /// A number that changes each time a cgroup becomes tracked or untracked, a task is born or one
    /// is moved.
    fn generation(&self) -> u64;

    /// Changes the generation.
    fn next_generation(&self);

    /// The share of this CPU in the statistics of the cgroup with counter `index`.
    fn cgroup_cpu(&self, index: u32) -> Option<&CgroupCpu<Self::Word>>;

    /// The slot `slot` of this CPU's stock, if there is such a slot.
    fn stock(&self, slot: u32) -> Option<&Stock<Self::Word>>;

    /// The slot `slot` of the stock of `cpu`, if there is such a CPU and slot.
    fn stock_of(&self, cpu: u32, slot: u32) -> Option<&Stock<Self::Word>>;

    /// The share of `cpu` in the statistics of the cgroup with counter `index`.
    fn cgroup_cpu_of(&self, index: u32, cpu: u32) -> Option<&CgroupCpu<Self::Word>>;

    /// The owners of the pages around a page frame; none if it is outside the page-owner map.
    fn chunk(&self, pfn: u64) -> Option<&Chunk<Self::Entry>>;

    /// 0, without the verifier knowing: a known start value would have it track each count as a separate state.
    fn opaque_zero(&self) -> u32;

    /// Runs the steps of a walk until one says that it was the last, at most `times`. For walks that
    /// the BPF verifier would follow to each of their ends.
    fn repeat<S: Step>(&self, times: u32, walk: &mut S);

    /// Pages charged at once on a miss.
    fn batch(&self) -> u32;

    /// Pages that a stock keeps of those that are freed. A batch, or 0 where what stocks are worth is
    /// measured: then nothing is stocked, and the batch is 1.
    fn stock_pages(&self) -> u32 {
        self.batch()
    }

    /// Freed pages that are uncharged at once. A batch, or 1 where what that is worth is measured.
    fn uncharge_batch(&self) -> u32 {
        self.batch()
    }

    /// Stock slots per CPU.
    fn slots(&self) -> u32;

    /// Time since boot, ns.
    fn now(&self) -> u64;

    /// Until when (see [`now`](Self::now)) user space has promised to act on limits that are met.
    fn attended_until(&self) -> u64;

    /// Other than 0 while limits are being set.
    fn setting(&self) -> &Self::Word;

    /// Hands an event to user space, or counts it as lost.
    fn emit(&self, event: &Event);

    /// The number of the task that this runs for; no other living one has it, and it is never 0.
    fn task(&self) -> u32;

    /// Whether [`collapsed`](crate::collapse::collapsed) is run when a task is done with a huge page for another.
    fn tells_collapses(&self) -> bool;

    /// Which huge page a task is at, by [`task`](Self::task) modulo [`COLLAPSES`](crate::collapse::COLLAPSES): its
    /// number above, and that of the huge page below; 0 for none.
    fn collapse(&self, place: u32) -> Option<&Self::Word>;

    /// Whether the kernel has the page frame free, or in a moment when that cannot be told; false where it does not say.
    fn is_free(&self, pfn: u64) -> bool;

    /// Adds to a loss counter.
    fn lose(&self, loss: Loss, count: u64);
}

/// A walk in steps.
pub trait Step {
    /// The next step; false if it was the last.
    fn step(&mut self) -> bool;
}
