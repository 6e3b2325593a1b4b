//! What a CPU remembers of a task's cgroup: when it is used, and when it is asked for again.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};

use memstock_common::fault::{miss, nearest_tracked};
use memstock_common::{Identity, Machine, NO_INDEX, control, stock::untracked_mark};
use support::{Shape, World, owner};

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

/// Levels of a path below the root, as the kernel tells them: 1 is the top, 0 means none.
fn path(levels: &[u32]) -> impl Fn(u32) -> u32 {
    let levels = levels.to_vec();
    move |level| levels.get(level as usize - 1).copied().unwrap_or(0)
}

fn nearest(world: &World<AtomicU64>, levels: &[u32]) -> u32 {
    let own = *levels.last().expect("a cgroup has a level");
    nearest_tracked(&world.cpu(0), world.slot(0, 0), 1, own, path(levels))
}

#[test]
fn an_untracked_cgroup_is_charged_to_its_nearest_tracked_ancestor() {
    let world = World::<AtomicU64>::new(Shape { cgroups: 3, ..Shape::default() });
    world.add(0, NO_INDEX);
    world.add(1, 0);
    let (top, middle, untracked) = (owner(0), owner(1), owner(2));
    assert_eq!(nearest(&world, &[top]), top);
    assert_eq!(nearest(&world, &[top, untracked]), top);
    assert_eq!(nearest(&world, &[top, middle, untracked]), middle);
    assert_eq!(nearest(&world, &[top, untracked, middle]), middle, "tracked itself");
    assert_eq!(nearest(&world, &[untracked]), untracked, "nobody to charge it to");
    // Without its middle level, the top is the nearest.
    let closed = control::close(&world.cpu(0), 1);
    assert_eq!(closed, Ok(0));
    assert_eq!(nearest(&world, &[top, middle, untracked]), top);
    assert_eq!(nearest(&world, &[top, middle]), top);
}

#[test]
fn a_marked_cgroup_is_not_looked_for_again() {
    let world = World::<AtomicU64>::new(Shape { cgroups: 1, ..Shape::default() });
    world.add(0, NO_INDEX);
    let (top, untracked) = (owner(0), 99);
    world.slot(0, 0).untracked.store(untracked_mark(untracked, 1), Ordering::SeqCst);
    assert_eq!(nearest(&world, &[top, untracked]), untracked);
    world.slot(0, 0).untracked.store(untracked_mark(untracked, 0), Ordering::SeqCst);
    assert_eq!(nearest(&world, &[top, untracked]), top, "the mark is of another generation");
}

/// The cgroup itself is as untracked after the registration as it was before it, so only the
/// generation of the search can tell that the search is out of date.
#[test]
fn an_ancestor_registered_between_search_and_miss_is_found() {
    let world = World::<AtomicU64>::new(Shape { cgroups: 1, ..Shape::default() });
    let (top, untracked) = (owner(0), 99);
    let (cpu, stock) = (world.cpu(0), world.slot(0, 0));
    let generation = cpu.generation();
    let levels = [top, untracked];
    let ancestors = path(&levels);
    assert_eq!(nearest_tracked(&cpu, stock, generation, untracked, &ancestors), untracked);
    world.add(0, NO_INDEX);
    miss(&cpu, stock, untracked, generation);
    let later = cpu.generation();
    assert_eq!(nearest_tracked(&cpu, stock, later, untracked, &ancestors), top);
}
