//! What a CPU remembers of a task's cgroup: when that is used, and when the kernel is asked again.

use std::sync::atomic::AtomicU64;

use crate::support::{Shape, World, key, owner};
use memstock_common::fault::nearest_tracked;
use memstock_common::owner_cache::{Answer, STACK_BYTES, Task};
use memstock_common::{NO_INDEX, NOBODY, OwnerCache};

const REGISTERS: Task = Task::Registers(0xffff_c900_0012_3f58);
const ELSEWHERE: Task = Task::Registers(0xffff_c900_0016_3f58);
const TASK: u64 = 0xffff_8881_0123_4000;
const OTHER: u64 = TASK + 0x4000;

type Plain = OwnerCache<AtomicU64>;

fn never<T>() -> T {
    panic!("asked although it is known");
}

#[test]
fn a_known_task_is_not_asked_for() {
    let cache = Plain::default();
    assert_eq!(cache.owner(REGISTERS, 7, || TASK, || 42), 42);
    assert_eq!(cache.owner(REGISTERS, 7, never, never::<u32>), 42);
    assert_eq!(cache.owner(Task::Current, 7, || TASK, never::<u32>), 42, "by its name as well");
}

#[test]
fn a_task_known_by_its_name_is_known_by_its_registers_from_then_on() {
    let cache = Plain::default();
    assert_eq!(cache.owner(Task::Current, 7, || TASK, || 42), 42);
    assert_eq!(cache.owner(REGISTERS, 7, || TASK, never::<u32>), 42);
    assert_eq!(cache.owner(REGISTERS, 7, never, never::<u32>), 42);
}

#[test]
fn another_task_or_generation_is_asked_for() {
    let cache = Plain::default();
    assert_eq!(cache.owner(REGISTERS, 7, || TASK, || 42), 42);
    assert_eq!(cache.owner(ELSEWHERE, 7, || OTHER, || 43), 43);
    assert_eq!(cache.owner(REGISTERS, 7, || TASK, || 42), 42, "one is remembered, not two");
    assert_eq!(cache.owner(Task::Current, 7, || OTHER, || 43), 43);
    assert_eq!(cache.owner(REGISTERS, 7, || TASK, || 42), 42, "nor its registers");
    for (task, generation) in [(REGISTERS, 8), (Task::Current, 9)] {
        let owner = generation as u32;
        assert_eq!(cache.owner(task, generation, || TASK, || owner), owner);
        assert_eq!(cache.owner(task, generation, || TASK, never::<u32>), owner);
    }
}

/// For a task that shares memory with one of another cgroup the kernel is asked each time; what is known of other tasks
/// stays.
#[test]
fn an_answer_that_does_not_hold_is_not_remembered() {
    let cache = Plain::default();
    let shared = |owner| Answer { owner, holds: false };
    assert_eq!(cache.owner(REGISTERS, 7, || TASK, || 41), 41);
    for owner in [42, 43] {
        assert_eq!(cache.owner(ELSEWHERE, 7, || OTHER, || shared(owner)), owner);
        assert_eq!(cache.known(ELSEWHERE, 7), None);
    }
    assert_eq!(cache.owner(REGISTERS, 7, never, never::<u32>), 41);
}

#[test]
fn nothing_is_known_at_first() {
    for task in [REGISTERS, Task::Registers(0), Task::Current] {
        let cache = Plain::default();
        assert_eq!(cache.owner(task, 1, || TASK, || 9), 9);
    }
}

#[test]
fn that_a_task_is_nobodys_is_remembered_too() {
    let cache = Plain::default();
    assert_eq!(cache.owner(Task::Current, 7, || TASK, || NOBODY), NOBODY);
    assert_eq!(cache.owner(Task::Current, 7, || TASK, never::<u32>), NOBODY);
    assert_eq!(cache.owner(Task::Current, 8, || TASK, || 42), 42);
}

/// An allocation's probe interrupts a fault's probe of the same task while that asks the kernel.
#[test]
fn an_allocation_may_interrupt_a_fault() {
    let cache = Plain::default();
    let owner = cache.owner(
        REGISTERS,
        7,
        || TASK,
        || {
            assert_eq!(cache.owner(Task::Current, 7, || TASK, || 42), 42);
            42
        },
    );
    assert_eq!(owner, 42);
    assert_eq!(cache.owner(REGISTERS, 7, never, never::<u32>), 42);

    // The task was moved in between: what the interrupted probe knows is outdated.
    let outdated = cache.owner(
        ELSEWHERE,
        8,
        || TASK,
        || {
            assert_eq!(cache.owner(Task::Current, 9, || TASK, || 44), 44);
            43
        },
    );
    assert_eq!(outdated, 43);
    assert_eq!(cache.owner(ELSEWHERE, 9, || TASK, || 44), 44);
}

/// The stack identifies a task that has faulted in user mode; any other stack, such as an interrupt's, does not.
#[test]
fn a_known_task_is_known_by_its_stack() {
    let cache = Plain::default();
    let Task::Registers(top) = REGISTERS else { panic!("by its registers") };
    let near = Task::Stack(top - 400);
    assert_eq!(cache.owner(near, 7, || TASK, || 42), 42, "nothing is known at first");
    assert_eq!(cache.owner(near, 7, || OTHER, || 43), 43, "nor without registers");
    assert_eq!(cache.owner(REGISTERS, 7, || TASK, || 42), 42);
    assert_eq!(cache.owner(near, 7, never, never::<u32>), 42);
    for elsewhere in [top, top + 400, top - STACK_BYTES, top - 0x4000, 0, u64::MAX] {
        let stack = Task::Stack(elsewhere);
        assert_eq!(cache.owner(stack, 7, || TASK, never::<u32>), 42, "by its name: {elsewhere:#x}");
    }
    assert_eq!(cache.owner(near, 8, || TASK, || 44), 44, "another generation");
}

/// The keys on a path below the root by level, as in the kernel: level 1 is the top; a key of 0 means none.
fn path(levels: &[u32]) -> impl Fn(u32) -> u32 {
    let levels = levels.to_vec();
    move |level| levels.get(level as usize - 1).copied().unwrap_or(0)
}

fn nearest(world: &World<AtomicU64>, levels: &[u32]) -> u32 {
    let own = *levels.last().expect("a cgroup has a level");
    nearest_tracked(&world.cpu(0), own, path(levels))
}

#[test]
fn an_untracked_cgroup_is_charged_to_its_nearest_tracked_ancestor() {
    let world = World::<AtomicU64>::new(Shape { cgroups: 3, ..Shape::default() });
    world.add(0, NO_INDEX);
    world.add(1, 0);
    let (top, middle, untracked) = (key(0), key(1), key(2));
    assert_eq!(nearest(&world, &[top]), owner(0));
    assert_eq!(nearest(&world, &[top, untracked]), owner(0));
    assert_eq!(nearest(&world, &[top, middle, untracked]), owner(1));
    assert_eq!(nearest(&world, &[top, untracked, middle]), owner(1), "tracked itself");
    assert_eq!(nearest(&world, &[untracked]), NOBODY);
    assert_eq!(nearest(&world, &[99, 98, 97]), NOBODY);
    // Once the middle level is closed, the top is the nearest.
    assert_eq!(world.close(1), Ok(0));
    assert_eq!(nearest(&world, &[top, middle, untracked]), owner(0));
    assert_eq!(nearest(&world, &[top, middle]), owner(0));
}

/// The deepest levels are not searched for an ancestor, but the task's own cgroup is found at any level.
#[test]
fn the_search_for_an_ancestor_has_an_end() {
    let world = World::<AtomicU64>::new(Shape { cgroups: 2, ..Shape::default() });
    world.add(0, NO_INDEX);
    let mut levels = vec![99; 63];
    levels[62] = key(0);
    assert_eq!(nearest(&world, &levels), owner(0));
    levels.push(key(1));
    assert_eq!(nearest(&world, &levels), owner(0), "the 63rd level is looked at");
    levels.insert(0, 98);
    assert_eq!(nearest(&world, &levels), NOBODY, "the 64th is not");
    levels[64] = key(0);
    assert_eq!(nearest(&world, &levels), owner(0));
}

/// A probe that interrupts another one while that asks the kernel, for the same task or for one that preempted it, gets
/// its answer and leaves no trace.
#[test]
fn in_the_midst_of_another_nothing_is_remembered() {
    let cache = Plain::default();
    let asked = cache.owner(
        REGISTERS,
        7,
        || TASK,
        || {
            assert_eq!(cache.owner(ELSEWHERE, 7, || OTHER, || 43), 43);
            assert_eq!(cache.owner(ELSEWHERE, 7, || OTHER, || 44), 44, "nor the time before");
            42
        },
    );
    assert_eq!(asked, 42);
    assert_eq!(cache.owner(REGISTERS, 7, never, never::<u32>), 42);
    assert_eq!(cache.known(ELSEWHERE, 7), None);
}
