//! Frees that no probe saw: found, distinguished from pages that only seem free, and uncharged once.

use crate::support::plain::{Plain, entry};
use crate::support::{Shape, owner, window};
use memstock_common::file::mark_file;
use memstock_common::lost::{disown_free, doubt_free};
use memstock_common::page::{UNCONFIRMED, UNCOUNTED};
use memstock_common::{Loss, Word};

/// Counter 1 below counter 0. Freed pages do not go to stocks.
fn chain() -> Plain {
    Plain::chain(Shape {
        cgroups: 2,
        batch: 1,
        stock_pages: Some(0),
        memsw: true,
        has_counts: true,
        ..Shape::default()
    })
}

fn doubted(world: &Plain) -> u32 {
    doubt_free(&world.cpu(0), window(0, 0..512)).expect("a window of the map")
}

fn disowned(world: &Plain) -> u32 {
    disown_free(&world.cpu(0), window(0, 0..512)).expect("a window of the map")
}

#[test]
fn what_was_freed_unseen_is_uncharged() {
    let world = chain();
    world.touch_each(0, 1, 0..10);
    world.alloc(0, Some(1), 16, 4);
    world.set_count(3..7, false);
    assert_eq!(doubted(&world), 4, "not the pages that are in use, nor those that nobody owns");
    world.assert_owned(&[0, 26]);
    assert_eq!(disowned(&world), 4);
    world.assert_owned(&[0, 22]);
    assert_eq!((world.usage(0), world.usage(1), world.loss(Loss::Healed)), (22, 22, 4));
    assert_eq!((doubted(&world), disowned(&world)), (0, 0));
}

#[test]
fn nothing_is_taken_that_was_not_free_twice() {
    let world = chain();
    world.touch_each(0, 1, 0..3);
    world.set_count(0..2, false);
    assert_eq!(disowned(&world), 0, "nor what was not marked before");
    assert_eq!(doubted(&world), 2);
    // One was only being migrated, the other is allocated again.
    world.set_count(0..1, true);
    world.touch(0, 1, 1);
    assert_eq!(disowned(&world), 0);
    assert_eq!([0, 1, 2].map(|pfn| entry(&world, pfn)), [owner(1); 3], "no mark is left");
    world.assert_owned(&[0, 3]);
}

#[test]
fn page_cache_goes_as_such() {
    let world = chain();
    world.touch_each(0, 1, 0..4);
    let marked = mark_file(&world.cpu(0), 0, 4, owner(1));
    memstock_common::file::file_changed(&world.cpu(0), owner(1), marked as i32);
    world.set_count(0..4, false);
    assert_eq!((doubted(&world), disowned(&world)), (4, 4));
    assert_eq!((world.usage(1), Word::load(&world.counter(1).file)), (0, 0));
}

/// Only the first page of a non-compound block has a count.
#[test]
fn pages_without_a_count_are_left_alone() {
    let world = chain();
    world.alloc_as(0, Some(1), 0, 2, false);
    let entries = [0, 1, 2, 3].map(|pfn| entry(&world, pfn));
    assert_eq!(
        entries,
        [owner(1), owner(1) | UNCOUNTED, owner(1) | UNCOUNTED, owner(1) | UNCOUNTED]
    );
    assert_eq!((doubted(&world), disowned(&world)), (0, 0));
    world.free(0, 0, 2);
    world.assert_owned(&[0, 0]);
    world.alloc(0, Some(1), 0, 2);
    assert_eq!(entry(&world, 1), owner(1), "the next allocation has nothing of it");
}

#[test]
fn a_page_of_a_cgroup_that_is_gone_goes_as_well() {
    let world = chain();
    world.touch_each(0, 1, 0..4);
    world.close(1).unwrap();
    world.set_count(0..4, false);
    assert_eq!((doubted(&world), disowned(&world)), (4, 4));
    world.flush(1, 0);
    assert_eq!(world.release(1), Ok(0));
}

#[test]
fn a_mark_of_somebody_elses_is_not_ours() {
    let world = chain();
    world.touch(0, 1, 0);
    memstock_common::adopt::doubt(&world.cpu(0), window(1, 0..1)).unwrap();
    world.set_count(0..1, false);
    assert_eq!(doubted(&world), 0);
    assert_eq!(entry(&world, 0), owner(1) | UNCONFIRMED);
}
