//! What the algorithm needs from its environment: the kernel maps, loom, or plain memory.

use crate::{CgroupCpu, Chunk, Counter, Entry, Event, Loss, Stock, Word};

/// Access to the shared counters.
pub trait Counters {
    /// The memory that counters are made of.
    type Word: Word;

    /// The counter at `index`, if the map has one.
    fn counter(&self, index: u32) -> Option<&Counter<Self::Word>>;

    /// Whether memory+swap is charged as well.
    fn memsw(&self) -> bool;

    /// [`MAX_DEPTH`](crate::MAX_DEPTH), hidden from the compiler but known to the BPF verifier: a walk is then a
    /// bounded loop instead of sixteen copies of its body.
    fn max_depth(&self) -> u32;
}

/// Everything that a miss, a drain or a control program needs, on the CPU that runs it.
pub trait World: Counters {
    /// What the page-owner map is made of.
    type Entry: Entry;

    /// The counter index of the tracked cgroup with this [`key`](crate::key_of).
    fn tracked(&self, key: u32) -> Option<u32>;

    /// Makes a cgroup tracked; false if that fails (taken, or no room).
    fn track(&self, key: u32, index: u32) -> bool;

    /// Makes a cgroup untracked again.
    fn untrack(&self, key: u32);

    /// A number that changes each time a cgroup becomes tracked or untracked, a task is born, or a task is moved.
    fn generation(&self) -> u64;

    /// Starts a new generation.
    fn next_generation(&self);

    /// This CPU's part of the statistics of the cgroup with counter `index`.
    fn cgroup_cpu(&self, index: u32) -> Option<&CgroupCpu<Self::Word>>;

    /// Slot `slot` of this CPU's stock, if it exists.
    fn stock(&self, slot: u32) -> Option<&Stock<Self::Word>>;

    /// Slot `slot` of the stock of `cpu`, if both exist.
    fn stock_of(&self, cpu: u32, slot: u32) -> Option<&Stock<Self::Word>>;

    /// The part of `cpu` in the statistics of the cgroup with counter `index`.
    fn cgroup_cpu_of(&self, index: u32, cpu: u32) -> Option<&CgroupCpu<Self::Word>>;

    /// The chunk of the page-owner map that holds a page frame; none if the frame is outside the map.
    fn chunk(&self, pfn: u64) -> Option<&Chunk<Self::Entry>>;

    /// Returns 0 without the verifier knowing: a known start value would make it track each count as a separate state.
    fn opaque_zero(&self) -> u32;

    /// Runs the steps of a walk until one says that it was the last, at most `times`. For walks whose every path the
    /// BPF verifier would otherwise follow.
    fn repeat<S: Step>(&self, times: u32, walk: &mut S);

    /// Pages charged at once on a miss.
    fn batch(&self) -> u32;

    /// Freed pages that a stock keeps: a batch. 0 in benchmarks that measure what stocks are worth; nothing is stocked
    /// then, and the batch is 1.
    fn stock_pages(&self) -> u32 {
        self.batch()
    }

    /// Freed pages that are uncharged at once: a batch. 1 in benchmarks that measure what batching is worth.
    fn uncharge_batch(&self) -> u32 {
        self.batch()
    }

    /// Stock slots per CPU.
    fn slots(&self) -> u32;

    /// Whether tasks can preempt the programs, as since Linux 7.0. A word that several programs write then needs atomic
    /// operations.
    fn is_preempted(&self) -> bool {
        false
    }

    /// Time since boot, ns.
    fn now(&self) -> u64;

    /// Until when (see [`now`](Self::now)) user space has promised to act on limits that are reached.
    fn lease_until(&self) -> u64;

    /// Nonzero while limits are being set.
    fn setting(&self) -> &Self::Word;

    /// Hands an event to user space, or counts it as lost.
    fn emit(&self, event: &Event);

    /// The number of the current task; unique among living tasks, and never 0.
    fn task(&self) -> u32;

    /// Whether [`collapsed`](crate::collapse::collapsed) runs when a task has finished with a huge page for another
    /// task.
    fn tracks_collapses(&self) -> bool;

    /// The huge page that a task is working on, at index [`task`](Self::task) modulo
    /// [`COLLAPSES`](crate::collapse::COLLAPSES): the task's number in the upper half, that of the huge page in the
    /// lower; 0 for none.
    fn collapse(&self, place: u32) -> Option<&Self::Word>;

    /// Whether the page frame looks free; also true at moments when that cannot be told. False where the kernel does
    /// not say.
    fn is_free(&self, pfn: u64) -> bool;

    /// Adds to a loss counter.
    fn lose(&self, loss: Loss, count: u64);
}

/// A walk in steps.
pub trait Step {
    /// The next step; false if it was the last.
    fn step(&mut self) -> bool;
}
