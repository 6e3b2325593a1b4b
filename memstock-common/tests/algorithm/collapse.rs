//! Huge pages that one task assembles for another: charged to the cgroup whose memory it is, once that is known.

use crate::support::plain::{self, Plain, entry};
use crate::support::{Shape, key, limited, owner, window};
use memstock_common::NOBODY;
use memstock_common::adopt::adopt;
use memstock_common::collapse::{COLLAPSE_ORDER, COLLAPSES};
use memstock_common::event::EventKind;
use memstock_common::page::UNCONFIRMED;

const HUGE: u64 = 1 << COLLAPSE_ORDER;
/// The CPU of the task that assembles them; its cgroup is not tracked.
const COLLECTOR: u32 = 1;
/// An index without a counter: a cgroup that is never tracked.
const UNTRACKED: u32 = 3;

/// Counters 1 and 2 below counter 0, `cpus` CPUs, and a chunk with room for two huge pages.
fn family(cpus: u32) -> Plain {
    family_of(Shape { cpus, ..Shape::default() })
}

fn family_of(shape: Shape) -> Plain {
    plain::family_of(Shape { batch: 8, cgroups: 3, tracks_collapses: true, ..shape })
}

/// An untracked task on `cpu` allocates the huge page at `pfn`.
fn allocate(world: &Plain, cpu: u32, pfn: u64) {
    world.alloc(cpu, Some(UNTRACKED), pfn, COLLAPSE_ORDER);
}

#[test]
fn it_is_charged_to_whom_the_memory_belongs() {
    let world = family(2);
    world.touch_each(0, 1, 0..HUGE);
    allocate(&world, COLLECTOR, HUGE);
    world.assert_owned(&[0, HUGE, 0]);
    world.free_each(COLLECTOR, 0..HUGE);
    world.assert_owned(&[0, 0, 0]);
    world.collapsed(COLLECTOR, 1);
    world.assert_owned(&[0, HUGE, 0]);
    assert!((HUGE..2 * HUGE).all(|pfn| entry(&world, pfn) == owner(1)), "without a mark");
    world.collapsed(COLLECTOR, 2);
    world.assert_owned(&[0, HUGE, 0]);
    world.free(0, HUGE, COLLAPSE_ORDER);
    world.assert_owned(&[0, 0, 0]);
}

#[test]
fn one_that_is_free_again_is_charged_to_nobody() {
    let world = family(2);
    allocate(&world, COLLECTOR, 0);
    assert_eq!(entry(&world, 0), NOBODY | UNCONFIRMED);
    world.free(COLLECTOR, 0, COLLAPSE_ORDER);
    assert_eq!(entry(&world, 0), NOBODY);
    world.collapsed(COLLECTOR, 1);
    world.assert_owned(&[0, 0, 0]);
    // The collapse failed, and another cgroup has the page.
    allocate(&world, COLLECTOR, 0);
    world.free(COLLECTOR, 0, COLLAPSE_ORDER);
    world.alloc(0, Some(2), 0, COLLAPSE_ORDER);
    world.collapsed(COLLECTOR, 1);
    world.assert_owned(&[0, 0, HUGE]);
}

#[test]
fn memory_of_nobody_stays_nobodys() {
    let world = family(2);
    allocate(&world, COLLECTOR, 0);
    world.collapsed(COLLECTOR, UNTRACKED);
    world.assert_owned(&[0, 0, 0]);
    // Nothing was allocated since.
    world.collapsed(COLLECTOR, 1);
    world.assert_owned(&[0, 0, 0]);
    // Marked pages can be adopted like any others.
    assert_eq!(adopt(&world.cpu(0), window(2, 0..HUGE)), Ok(HUGE as u32));
    world.assert_owned(&[0, 0, HUGE]);
}

#[test]
fn pages_that_are_free_are_not_charged() {
    let world = family(2);
    allocate(&world, COLLECTOR, 0);
    // Before the collapse ends, half of it is freed, and a page of that half goes to another cgroup.
    world.free(0, HUGE / 2, COLLAPSE_ORDER - 1);
    world.touch(0, 2, HUGE / 2);
    world.collapsed(COLLECTOR, 1);
    assert_eq!(entry(&world, HUGE / 2), owner(2));
    world.assert_owned(&[0, HUGE - 1, 1]);
}

/// A tracked task is charged for what it allocates, whoever it is for.
#[test]
fn a_task_that_is_charged_is_not_asked_about() {
    let world = family(2);
    world.alloc(COLLECTOR, Some(2), 0, COLLAPSE_ORDER);
    world.collapsed(COLLECTOR, 1);
    world.assert_owned(&[0, 0, HUGE]);
    // Smaller blocks, and blocks that the kernel does not charge, do not count as huge pages of a task.
    world.alloc(COLLECTOR, Some(UNTRACKED), HUGE, COLLAPSE_ORDER - 1);
    world.collapsed(COLLECTOR, 1);
    world.alloc(COLLECTOR, None, HUGE, COLLAPSE_ORDER);
    world.collapsed(COLLECTOR, 1);
    world.assert_owned(&[0, 0, HUGE]);
}

#[test]
fn two_tasks_are_told_apart() {
    let world = family(3);
    allocate(&world, 1, 0);
    allocate(&world, 2, HUGE);
    world.collapsed(2, 2);
    world.collapsed(1, 1);
    world.assert_owned(&[0, HUGE, HUGE]);
    assert_eq!([0, HUGE].map(|pfn| entry(&world, pfn)), [1, 2].map(owner));
}

#[test]
fn of_two_tasks_in_one_place_the_later_is_charged() {
    let world = family_of(Shape { cpus: 3, tasks_apart: COLLAPSES, ..Shape::default() });
    allocate(&world, 1, 0);
    allocate(&world, 2, HUGE);
    world.collapsed(1, 1);
    world.assert_owned(&[0, 0, 0]);
    world.collapsed(2, 2);
    world.assert_owned(&[0, 0, HUGE]);
}

/// The kernel would have refused the collapse; by then it is too late.
#[test]
fn a_limit_is_told_of() {
    let world = family(2);
    world.close(2).unwrap();
    world.release(2).unwrap();
    world.register(limited(2, 0, 100)).unwrap();
    allocate(&world, COLLECTOR, 0);
    world.collapsed(COLLECTOR, 2);
    world.assert_owned(&[0, 0, HUGE]);
    let events = world.events();
    let told = events.iter().map(|event| (event.kind, event.nr_pages)).collect::<Vec<_>>();
    // Like any huge page that does not fit where a small page would.
    assert_eq!(told, [(EventKind::LimitNear as u32, HUGE)]);
    assert_eq!(events[0].cgroup_id as u32, key(2));
}
