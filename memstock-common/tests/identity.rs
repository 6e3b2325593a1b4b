//! What a CPU remembers of a task's cgroup: when it is used, and when it is asked for again.

use std::sync::atomic::AtomicU64;

use memstock_common::Identity;

const TASK: u64 = 0xffff_c900_0012_3f58;

fn never() -> u32 {
    panic!("asked although it is known");
}

#[test]
fn a_known_task_is_not_asked_for() {
    let identity = Identity::<AtomicU64>::default();
    assert_eq!(identity.owner(TASK, 7, || 42), 42);
    assert_eq!(identity.owner(TASK, 7, never), 42);
}

#[test]
fn another_task_or_generation_is_asked_for() {
    let identity = Identity::<AtomicU64>::default();
    assert_eq!(identity.owner(TASK, 7, || 42), 42);
    assert_eq!(identity.owner(TASK + 0x4000, 7, || 43), 43);
    assert_eq!(identity.owner(TASK, 7, || 42), 42, "one task is remembered, not two");
    assert_eq!(identity.owner(TASK, 8, || 44), 44);
    assert_eq!(identity.owner(TASK, 8, never), 44);
}

#[test]
fn a_fault_that_nothing_identifies_is_always_asked_for() {
    let identity = Identity::<AtomicU64>::default();
    assert_eq!(identity.owner(TASK, 7, || 42), 42);
    assert_eq!(identity.owner(0, 7, || 1), 1);
    assert_eq!(identity.owner(0, 7, || 2), 2);
    assert_eq!(identity.owner(TASK, 7, || 42), 42, "and it is remembered for nobody");
}

#[test]
fn nothing_is_known_at_first() {
    let identity = Identity::<AtomicU64>::default();
    assert_eq!(identity.owner(0, 0, || 9), 9);
    assert_eq!(identity.owner(TASK, 0, || 8), 8);
}
