//! The search for lost frees, concurrent with allocation and free of the page, under every interleaving that matters:
//! the page is charged if and only if it is in use.

use crate::support::checked::{Model, beside, explore, shape};
use crate::support::{Shape, owner, window};
use loom::sync::Arc;
use memstock_common::lost::{disown_free, doubt_free};
use memstock_common::{Entry, NO_INDEX};

/// A cgroup that owns page 0. If `is_lost`, the page was freed unseen.
fn world(is_lost: bool) -> Arc<Model> {
    let world = Model::new(Shape { cpus: 2, has_counts: true, ..shape(1, 2) });
    world.add(0, NO_INDEX);
    world.alloc(0, Some(0), 0, 0);
    world.set_count(0..1, !is_lost);
    Arc::new(world)
}

/// Both passes, one after the other.
fn look(world: &Model) {
    for look in [doubt_free, disown_free] {
        assert!(look(&world.cpu(0), window(0, 0..1)).is_ok());
    }
}

#[test]
fn beside_an_allocation() {
    explore(|| {
        let world = world(true);
        beside(&world, look, |world| world.alloc(1, Some(0), 0, 0));
        world.assert_conserved();
        world.assert_owned(&[1]);
        assert_eq!(world.entry(0).load(), owner(0));
    });
}

#[test]
fn beside_a_free() {
    explore(|| {
        let world = world(false);
        beside(&world, look, |world| world.free(1, 0, 0));
        world.assert_conserved();
        world.assert_owned(&[0]);
    });
}

#[test]
fn beside_a_free_and_an_allocation() {
    explore(|| {
        let world = world(false);
        beside(&world, look, |world| {
            world.free(1, 0, 0);
            world.alloc(1, Some(0), 0, 0);
        });
        world.assert_conserved();
        world.assert_owned(&[1]);
    });
}

/// The free happens during the search, and is missed.
#[test]
fn beside_a_free_that_is_missed_and_an_allocation() {
    explore(|| {
        let world = world(false);
        beside(&world, look, |world| {
            world.set_count(0..1, false);
            world.alloc(1, Some(0), 0, 0);
        });
        world.assert_conserved();
        world.assert_owned(&[1]);
    });
}
