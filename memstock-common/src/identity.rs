//! Whose fault or allocation it is: remembers the cgroup of the task that a CPU served last.
//!
//! Asking the kernel for the current cgroup is most of what a hit costs
//! (`docs/adr/0006-remember-whose-fault-it-is.md`). A task keeps its cgroup for long, so the answer
//! is kept for as long as nothing has happened that could change it: no task was born (it could have
//! the place of a dead one), none was moved, no cgroup became tracked or untracked. Each of these
//! starts a new *generation*.

use crate::Word;

/// What one CPU remembers, beside its stock.
///
/// Read and written by the probes on that CPU, of which one may run in the midst of another, for the same task or, since
/// Linux 7.0, for one that has preempted it. So it has one writer at a time, and who reads it makes sure that it was not
/// written meanwhile.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<W> {
    /// Where the task saves its registers when it faults in user mode; 0 if that is not known.
    pub registers: W,
    /// What the kernel calls the task; 0 as long as nothing is remembered.
    pub task: W,
    /// The generation in which the cgroup was asked for.
    pub generation: W,
    /// The owner, and above it how often this was written to: an odd number while it is.
    pub owner: W,
}

/// In [`Identity::owner`]: added when writing begins, and when it ends.
const WRITTEN: u64 = 1 << 32;

const _: () = assert!(size_of::<Identity<u64>>() == 32);

/// How a probe tells the task that it runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// By the address of its saved registers, which is at hand.
    Registers(u64),
    /// By an address on the stack that the probe runs on, which is the task's own unless this is an
    /// interrupt; by its name where that does not tell.
    Stack(u64),
    /// By its name, which has to be asked for.
    Current,
}

/// Who is charged, as the kernel was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The owner.
    pub owner: u32,
    /// Whether it is so for whatever the task allocates, and stays so until a new generation. Not for one that has
    /// memory of another cgroup's task in common with it: what it gets for that is the other's, and at its next
    /// exec it has memory of its own, which starts no generation.
    pub holds: bool,
}

impl From<u32> for Answer {
    fn from(owner: u32) -> Self {
        Self { owner, holds: true }
    }
}

/// Bytes below the registers of a user-mode fault that are the task's kernel stack for certain: they are
/// saved at its top, and it has 16 KiB or more (`THREAD_SIZE` in `arch/x86/include/asm/page_64_types.h`).
pub const STACK_BYTES: u64 = 8192;

impl<W: Word> Identity<W> {
    /// The owner that faults and allocations of the current task are charged to in this `generation`,
    /// which the caller has read before, if that is remembered and seen without asking the kernel.
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

    /// The same, whatever is remembered: asks who the task is, and `owner` if it is another.
    ///
    /// `current` is the kernel's name of the task, never 0.
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

    /// Whether an address is on the kernel stack of the task that is known by its registers.
    ///
    /// Two comparisons and no difference: the BPF verifier lets pointers be compared with numbers, not
    /// calculated with.
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
        // Also a full barrier: the cgroup must not be asked for before the generation was read, or
        // an answer from before a move would be kept under the generation that followed it.
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

    /// Whether nobody writes, or has written, since the owner was `seen`.
    #[inline(always)]
    fn is_still(&self, seen: u64) -> bool {
        seen & WRITTEN == 0 && self.owner.load() == seen
    }

    /// Begins to write, unless somebody else does, or has since the owner was `seen`.
    #[inline(always)]
    fn begin(&self, seen: u64) -> bool {
        seen & WRITTEN == 0 && self.owner.replace(seen, seen.wrapping_add(WRITTEN))
    }

    /// Ends what [`begin`](Self::begin) has begun.
    #[inline(always)]
    fn end(&self, seen: u64, owner: u32) {
        let written = seen.wrapping_add(2 * WRITTEN) & !(WRITTEN - 1);
        self.owner.store(written | u64::from(owner));
    }
}
