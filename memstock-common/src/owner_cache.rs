//! Which cgroup to charge: remembers the owner of the task that a CPU served last.
//!
//! Asking the kernel for the current cgroup is most of the cost of a hit
//! (`docs/adr/0006-remembered-cgroup.md`). A task stays in its cgroup for long, so the answer is kept until
//! something happens that could change it: a task is born (it could have the address of a dead one), a task is moved,
//! or a cgroup becomes tracked or untracked. Each of these starts a new *generation*.

use crate::Word;

/// What one CPU remembers, next to its stock word.
///
/// Read and written by the probes on that CPU. One may run in the middle of another, for the same task or, since Linux
/// 7.0, for a task that has preempted it. So it has one writer at a time, and readers check that it was not written
/// meanwhile.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnerCache<W> {
    /// The address where the task saves its registers when it faults in user mode; 0 if not known.
    pub registers: W,
    /// The address of the task's `task_struct`; 0 while nothing is remembered.
    pub task: W,
    /// The generation in which the kernel was asked for the cgroup.
    pub generation: W,
    /// The owner in the lower half; in the upper, a sequence count that is odd during a write.
    pub owner: W,
}

/// In [`OwnerCache::owner`]: added at the beginning and at the end of a write.
const WRITTEN: u64 = 1 << 32;

const _: () = assert!(size_of::<OwnerCache<u64>>() == 32);

/// How a probe identifies the current task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// By the address of its saved registers, which is at hand.
    Registers(u64),
    /// By an address on the stack that the probe runs on, which is the task's own unless this is an interrupt; by its
    /// `task_struct` where that does not tell.
    Stack(u64),
    /// By the address of its `task_struct`, for which the kernel has to be asked.
    Current,
}

/// The kernel's answer about who is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The owner.
    pub owner: u32,
    /// Whether it holds for all that the task allocates, until a new generation. It does not for a task that shares its
    /// memory with a task of another cgroup: user pages are then charged to the other cgroup, and its next exec gives
    /// it memory of its own without starting a generation.
    pub holds: bool,
}

impl From<u32> for Answer {
    fn from(owner: u32) -> Self {
        Self { owner, holds: true }
    }
}

/// Bytes below the registers of a user-mode fault that certainly belong to the task's kernel stack: they are saved at
/// its top, and it has 16 KiB or more (`THREAD_SIZE` in `arch/x86/include/asm/page_64_types.h`).
pub const STACK_BYTES: u64 = 8192;

impl<W: Word> OwnerCache<W> {
    /// The owner that faults and allocations of the current task are charged to in this `generation`, which the caller
    /// has read before; none if that is not remembered or would need asking the kernel.
    #[inline(always)]
    pub fn known(&self, task: Task, generation: u64) -> Option<u32> {
        let seen = self.owner.load();
        if self.generation.load() != generation {
            return None;
        }
        let same = match task {
            Task::Registers(registers) => self.registers.load() == registers,
            Task::Stack(at) => self.is_stack_of(at),
            Task::Current => false,
        };
        (same && self.is_still(seen)).then_some(seen as u32)
    }

    /// Like [`known`](Self::known), but asks the kernel which task this is, and for its `owner` if it is another.
    ///
    /// `current` is the address of the task's `task_struct`, never 0.
    #[inline(always)]
    pub fn owner<A: Into<Answer>>(
        &self,
        task: Task,
        generation: u64,
        current: impl Fn() -> u64,
        owner: impl FnOnce() -> A,
    ) -> u32 {
        if let Some(owner) = self.known(task, generation) {
            return owner;
        }
        let registers = match task {
            Task::Registers(registers) => registers,
            Task::Stack(_) | Task::Current => 0,
        };
        let current = current();
        let seen = self.owner.load();
        let is_known = self.generation.load() == generation && self.task.load() == current;
        if !is_known || !self.is_still(seen) {
            return self.ask(registers, current, generation, owner);
        }
        if registers != 0 && self.begin(seen) {
            self.registers.store(registers);
            self.end(seen, seen as u32);
        }
        seen as u32
    }

    /// Whether an address is on the kernel stack of the task whose registers are remembered.
    ///
    /// Two comparisons instead of a difference: the BPF verifier allows comparing pointers with numbers, but no
    /// arithmetic on them.
    #[inline(always)]
    fn is_stack_of(&self, at: u64) -> bool {
        let top = self.registers.load();
        at < top && at > top.wrapping_sub(STACK_BYTES)
    }

    #[inline(always)]
    fn ask<A: Into<Answer>>(
        &self,
        registers: u64,
        task: u64,
        generation: u64,
        owner: impl FnOnce() -> A,
    ) -> u32 {
        let seen = self.owner.load();
        // Also a full barrier: the kernel must not be asked for the cgroup before the generation is read, or an answer
        // from before a move would be kept under the generation that follows the move.
        let has_begun = self.begin(seen);
        let Answer { owner, holds } = owner().into();
        if !has_begun {
            return owner;
        }
        if holds {
            self.registers.store(registers);
            self.task.store(task);
            self.generation.store(generation);
            self.end(seen, owner);
        } else {
            self.end(seen, seen as u32);
        }
        owner
    }

    /// Whether nobody is writing or has written since the owner was `seen`.
    #[inline(always)]
    fn is_still(&self, seen: u64) -> bool {
        seen & WRITTEN == 0 && self.owner.load() == seen
    }

    /// Begins a write, unless somebody else is writing or has written since the owner was `seen`.
    #[inline(always)]
    fn begin(&self, seen: u64) -> bool {
        seen & WRITTEN == 0 && self.owner.replace(seen, seen.wrapping_add(WRITTEN))
    }

    /// Ends the write that [`begin`](Self::begin) began.
    #[inline(always)]
    fn end(&self, seen: u64, owner: u32) {
        let written = seen.wrapping_add(2 * WRITTEN) & !(WRITTEN - 1);
        self.owner.store(written | u64::from(owner));
    }
}
