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
/// Written by the probes on that CPU. The probe of an allocation may interrupt that of a fault (one that is seen
/// by perf's event runs with interrupts on); it then runs for the same task, and leaves all that the other goes
/// on to write, or what is no longer of the current generation and so not used.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<W> {
    /// Where the task saves its registers when it faults in user mode; 0 while nothing is remembered.
    pub registers: W,
    /// What the kernel calls the task; 0 while nothing is remembered.
    pub task: W,
    /// The generation in which the cgroup was asked for.
    pub generation: W,
    /// The owner.
    pub owner: W,
}

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
        if self.generation.load() != generation {
            return None;
        }
        let same = match task {
            Task::Registers(registers) => self.registers.load() == registers,
            Task::Stack(at) => self.is_stack_of(at),
            Task::Current => false,
        };
        same.then(|| self.owner.load() as u32)
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
        if self.generation.load() != generation || self.task.load() != current {
            return self.ask(registers, current, generation, owner);
        }
        if registers != 0 {
            self.registers.store(registers);
        }
        self.owner.load() as u32
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
        self.registers.store(0);
        // Also a full barrier: the cgroup must not be asked for before the generation was read, or
        // an answer from before a move would be kept under the generation that followed it.
        self.task.swap(0);
        let Answer { owner, holds } = owner().into();
        if !holds {
            return owner;
        }
        self.owner.store(owner.into());
        self.generation.store(generation);
        self.task.store(task);
        self.registers.store(registers);
        owner
    }
}
