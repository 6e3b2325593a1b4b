//! Loom: what a CPU remembers of a task's cgroup, while the task moves, and while another task preempts the probe.

use crate::support::NewWord;
use crate::support::checked::{Checked, explore, explore_steps};
use loom::sync::Arc;
use loom::thread;
use memstock_common::owner_cache::Task;
use memstock_common::plain::empty_stock;
use memstock_common::{OwnerCache, Word};

const TASK: u64 = 1;
const OLD: u64 = 10;
const NEW: u64 = 20;

/// The kernel's side: the task's cgroup, and the generation that `bump_generation` changes after a move.
struct Kernel {
    cgroup: Checked,
    generation: Checked,
}

impl Kernel {
    /// The probe of a fault or an allocation, which reads the generation first.
    fn probe(&self, cache: &OwnerCache<Checked>, task: Task) -> u32 {
        let generation = self.generation.load();
        cache.owner(task, generation, || TASK, || self.cgroup.load() as u32)
    }
}

/// However probes and a move interleave, nothing after the move is charged to the old cgroup.
#[test]
fn move_beside_fault_and_allocation() {
    const TASKS: [Task; 3] = [Task::Registers(7), Task::Stack(6), Task::Current];
    explore(|| {
        let kernel = Arc::new(Kernel { cgroup: Checked::new(OLD), generation: Checked::new(1) });
        let moving = Arc::clone(&kernel);
        let mover = thread::spawn(move || {
            moving.cgroup.swap(NEW);
            moving.generation.fetch_add(1);
        });
        let cache = empty_stock::<Checked>().owner_cache;
        for task in TASKS {
            let owner = u64::from(kernel.probe(&cache, task));
            assert!(owner == OLD || owner == NEW);
        }
        mover.join().expect("the mover does not panic");
        for task in TASKS {
            assert_eq!(u64::from(kernel.probe(&cache, task)), NEW);
        }
    });
}

/// Two tasks on one CPU, either of which may preempt the other at any step: each is charged to its own cgroup.
#[test]
fn two_tasks_are_never_mixed() {
    const OTHER_TASK: u64 = 2;
    fn probes(cache: &OwnerCache<Checked>, task: u64, owner: u64, top: u64) {
        for by in [Task::Registers(top), Task::Stack(top - 1), Task::Current, Task::Registers(top)]
        {
            let asked = cache.owner(by, 1, || task, || owner as u32);
            assert_eq!(u64::from(asked), owner, "{by:?}");
        }
    }
    explore_steps(|| {
        let cache = Arc::new(empty_stock::<Checked>().owner_cache);
        let theirs = Arc::clone(&cache);
        let other = thread::spawn(move || probes(&theirs, OTHER_TASK, NEW, 0x2_0000));
        probes(&cache, TASK, OLD, 0x1_0000);
        other.join().expect("it is charged itself");
        probes(&cache, OTHER_TASK, NEW, 0x2_0000);
        probes(&cache, TASK, OLD, 0x1_0000);
    });
}

/// An interrupt on the task's own stack, while the task's probe overwrites what was remembered of another task: it is
/// charged to the task as well.
#[test]
fn an_interrupt_does_not_see_half_of_what_is_written() {
    const TOP: u64 = 0x1_0000;
    explore_steps(|| {
        let cache = Arc::new(empty_stock::<Checked>().owner_cache);
        assert_eq!(cache.owner(Task::Current, 1, || TASK + 1, || NEW as u32), NEW as u32);
        let probe = |cache: &OwnerCache<Checked>, task| {
            let owner = cache.owner(task, 1, || TASK, || OLD as u32);
            assert_eq!(u64::from(owner), OLD, "{task:?}");
        };
        let theirs = Arc::clone(&cache);
        let interrupt = thread::spawn(move || probe(&theirs, Task::Stack(TOP - 1)));
        probe(&cache, Task::Registers(TOP));
        interrupt.join().expect("it is charged to the task");
    });
}
