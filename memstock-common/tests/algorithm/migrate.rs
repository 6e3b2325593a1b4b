//! Pages that migrate to another frame stay charged to their owner.

use crate::support::plain::Plain;
use crate::support::{Shape, owner};
use memstock_common::file::FILE;
use memstock_common::migrate::migrated;
use memstock_common::{Entry, Loss, NO_INDEX, NOBODY};

/// Two sibling cgroups, on two CPUs, and two chunks.
fn row() -> Plain {
    let world = Plain::new(Shape { cpus: 2, batch: 8, cgroups: 2, chunks: 2, ..Shape::default() });
    world.add(0, NO_INDEX);
    world.add(1, NO_INDEX);
    world
}

fn entries(world: &Plain, pages: [u64; 2]) -> [u32; 2] {
    pages.map(|pfn| Entry::load(world.entry(pfn)))
}

#[test]
fn the_owner_goes_along() {
    let world = row();
    world.touch(0, 0, 7);
    // A kernel thread on another CPU migrates it; the new frame has no owner.
    world.alloc(1, None, 1030, 0);
    migrated(&world.cpu(1), 7, 1030, 1);
    world.assert_owned(&[1, 0]);
    assert_eq!(entries(&world, [7, 1030]), [NOBODY, owner(0)]);
    world.free(1, 7, 0);
    world.assert_owned(&[1, 0]);
    world.free(0, 1030, 0);
    world.assert_owned(&[0, 0]);
}

#[test]
fn a_block_goes_as_a_whole() {
    let world = row();
    world.alloc(0, Some(1), 512, 9);
    world.touch(0, 0, 1024 + 16);
    migrated(&world.cpu(1), 512, 0, 512);
    world.assert_owned(&[1, 512]);
    assert_eq!(entries(&world, [0, 511]), [owner(1); 2]);
    assert_eq!(entries(&world, [512, 1023]), [NOBODY; 2]);
    world.alloc(0, Some(1), 512, 4);
    migrated(&world.cpu(0), 512, 1024 + 32, 16);
    world.assert_owned(&[1, 528]);
    assert_eq!(entries(&world, [1024 + 31, 1024 + 48]), [NOBODY; 2], "not beyond its ends");
    assert_eq!(entries(&world, [1024 + 32, 1024 + 47]), [owner(1); 2]);
}

/// A task that migrates another's memory is at first charged for allocating the new frame.
#[test]
fn whoever_moves_it_is_not_charged() {
    let world = row();
    world.touch(0, 0, 1);
    world.touch(1, 1, 2);
    migrated(&world.cpu(1), 1, 2, 1);
    world.assert_owned(&[1, 0]);
    world.free(1, 1, 0);
    world.assert_owned(&[1, 0]);
    // Memory of nobody stays nobody's.
    world.touch(1, 1, 3);
    migrated(&world.cpu(1), 4, 3, 1);
    world.assert_owned(&[1, 0]);
}

/// Memory that was plugged in since the start: pages from there have no owner; pages that move there stay charged in
/// their old frame until that is freed.
#[test]
fn frames_beyond_the_map_are_nobodys() {
    let world = row();
    world.touch(0, 0, 1);
    migrated(&world.cpu(0), 1, 2048, 1);
    world.assert_owned(&[1, 0]);
    assert_eq!(world.loss(Loss::PagesOutside), 1);
    world.free(0, 1, 0);
    world.assert_owned(&[0, 0]);
    world.touch(0, 1, 2);
    migrated(&world.cpu(0), 2048, 2, 1);
    world.assert_owned(&[0, 0]);
}

#[test]
fn what_is_no_folio_is_left_alone() {
    let world = row();
    world.touch(0, 0, 1);
    for nr_pages in [0, 3, 2048] {
        migrated(&world.cpu(0), 1, 9, nr_pages);
    }
    world.assert_owned(&[1, 0]);
}

/// A block with too many owners keeps some of them when it is allocated: those are uncharged when pages move in.
#[test]
fn who_is_left_in_the_new_frame_is_uncharged() {
    let world = row();
    world.touch_each(0, 0, 16..32);
    for pfn in 0..16 {
        // Their frees will be lost.
        world.touch(0, pfn as u32 % 2, pfn);
        world.cache(0, pfn, 1);
    }
    world.alloc(1, None, 0, 4);
    assert!(world.loss(Loss::BlocksMixed) > 0);
    assert_eq!(entries(&world, [4, 7]), [owner(0) | FILE, owner(1) | FILE]);
    // Four more are uncharged with the whole block, the others as the pages arrive.
    migrated(&world.cpu(1), 16, 0, 16);
    world.assert_owned(&[16, 0]);
    world.assert_file_pages(&[0, 0]);
    assert_eq!(entries(&world, [0, 15]), [owner(0); 2]);
    world.free(0, 0, 4);
    for cpu in 0..2 {
        world.drain(cpu, NO_INDEX);
    }
    assert_eq!([world.usage(0), world.usage(1)], [0, 0]);
    assert_eq!([world.file(0), world.file(1)], [0, 0]);
}
