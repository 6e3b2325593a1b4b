//! Whose fault it is: remembers the cgroup of the task that last faulted on a CPU.
//!
//! Asking the kernel for the current cgroup is most of what a hit costs
//! (`docs/adr/0006-remember-whose-fault-it-is.md`). A task keeps its cgroup for long, so the answer
//! is kept for as long as nothing has happened that could change it: no task was born (it could have
//! the stack of a dead one), none was moved, no cgroup became tracked. Each of these starts a new
//! *generation*.

use crate::Word;

/// What one CPU remembers, beside its stock.
///
/// Written by the fault program on that CPU only, which the kernel never nests.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<W> {
    /// What tells the task from every other living one; 0 while nothing is remembered.
    pub task: W,
    /// The generation in which the cgroup was asked for.
    pub generation: W,
    /// Low 32 bits of the id of its cgroup.
    pub owner: W,
}

const _: () = assert!(size_of::<Identity<u64>>() == 24);

impl<W: Word> Identity<W> {
    /// The owner of a fault of `task`; asks `ask` if it is not known in this `generation`.
    ///
    /// `task` 0 means that nothing tells whose fault it is: then `ask` is always asked. The caller
    /// has read `generation` before.
    #[inline(always)]
    pub fn owner(&self, task: u64, generation: u64, ask: impl FnOnce() -> u32) -> u32 {
        if task != 0 && self.task.load() == task && self.generation.load() == generation {
            return self.owner.load() as u32;
        }
        // Also a full barrier: the cgroup must not be asked for before the generation was read, or
        // an answer from before a move would be kept under the generation that followed it.
        self.task.swap(0);
        let owner = ask();
        self.owner.store(owner.into());
        self.generation.store(generation);
        self.task.store(task);
        owner
    }
}
