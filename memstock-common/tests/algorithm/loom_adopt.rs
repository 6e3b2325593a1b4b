//! Requests of user space on the owner map, concurrent with probes that see the same pages, under every interleaving
//! that matters.
//!
//! `support/checked.rs` describes how they are explored, and on which memory model.

use crate::support::checked::{Checked, Model, beside, explore, shape};
use crate::support::{NewWord, Shape, owner, window};
use loom::sync::Arc;
use memstock_common::adopt::{Window, adopt, disown, doubt, reparent};
use memstock_common::file::FILE;
use memstock_common::migrate::migrated;
use memstock_common::page::{UNCONFIRMED, owner_in};
use memstock_common::{Entry, Loss, NO_INDEX, NOBODY, Word};

/// Two sibling cgroups, on two CPUs.
fn row() -> Arc<Model> {
    let world = Model::new(Shape { cpus: 2, ..shape(2, 2) });
    world.add(0, NO_INDEX);
    world.add(1, NO_INDEX);
    Arc::new(world)
}

fn entry(world: &Model, pfn: u64) -> u32 {
    world.entry(pfn).load()
}

/// A page is adopted while it is freed. If it is freed first, it stays charged until its next allocation.
#[test]
fn adopt_beside_free() {
    for order in [0, 1] {
        explore(move || {
            let world = row();
            let (adopted, ()) = beside(
                &world,
                |world| adopt(&world.cpu(0), window(0, 0..3)),
                move |world| world.free(1, 0, order),
            );
            assert_eq!(adopted, Ok(3));
            world.assert_conserved();
            let in_vain = (0..1 << order).filter(|&pfn| entry(&world, pfn) != NOBODY).count();
            world.alloc(0, None, 0, order);
            world.assert_owned(&[3 - (1 << order), 0]);
            assert_eq!(world.loss(Loss::Healed), in_vain as u64);
        });
    }
}

/// A page is adopted, or was adopted and is disowned, while it moves to another frame. It is charged in the new frame
/// or, if it was adopted too late, not at all; never in both.
#[test]
fn adopt_beside_migration() {
    for was_adopted in [false, true] {
        explore(move || {
            let world = row();
            if was_adopted {
                assert_eq!(adopt(&world.cpu(0), window(0, 0..1)), Ok(1));
            }
            let (asked, ()) = beside(
                &world,
                move |world| match was_adopted {
                    true => disown(&world.cpu(0), window(0, 0..1)),
                    false => adopt(&world.cpu(0), window(0, 0..1)),
                },
                |world| {
                    migrated(&world.cpu(1), 0, 1, 1);
                    world.free(1, 0, 0);
                },
            );
            assert!(asked.is_ok());
            world.assert_conserved();
            assert!(world.owned()[0] <= 1);
            world.alloc(0, None, 0, 0);
            assert_eq!(entry(&world, 0), NOBODY);
            world.free(1, 1, 0);
            world.assert_owned(&[0, 0]);
        });
    }
}

/// A page's new frame is adopted during the migration: it is charged to the page's owner only.
#[test]
fn adoption_of_the_new_frame_beside_migration() {
    for is_file in [0, 1] {
        explore(move || {
            let world = row();
            world.touch(1, 1, 0);
            world.cache(1, 0, 1);
            let (adopted, ()) = beside(
                &world,
                move |world| adopt(&world.cpu(0), Window { is_file, ..window(0, 1..2) }),
                |world| migrated(&world.cpu(1), 0, 1, 1),
            );
            assert!(adopted.is_ok());
            world.assert_conserved();
            assert_eq!([0, 1].map(|pfn| entry(&world, pfn)), [NOBODY, owner(1) | FILE]);
            world.assert_file_pages(&[0, 1]);
        });
    }
}

/// A page is adopted while it is allocated: the probe has the last word.
#[test]
fn adopt_beside_allocation() {
    for (index, order) in [(0, 0), (1, 0), (1, 1)] {
        explore(move || {
            let world = row();
            world.fault(1, index);
            beside(
                &world,
                |world| adopt(&world.cpu(0), window(0, 0..2)).expect("a cgroup and a page"),
                move |world| world.alloc(1, Some(index), 0, order),
            );
            for pfn in 0..1 << order {
                assert_eq!(entry(&world, pfn), owner(index));
            }
            world.assert_conserved();
            world.free(1, 0, 1);
            world.assert_owned(&[0, 0]);
        });
    }
}

/// A page's true owner, as in `/proc`, next to memstock's view.
struct Proc {
    world: Arc<Model>,
    truth: Checked,
}

impl Proc {
    fn free(&self, pfn: u64) {
        self.truth.swap(0);
        self.world.free(1, pfn, 0);
    }

    fn touch(&self, index: u32, pfn: u64) {
        self.truth.swap(owner(index).into());
        self.world.touch(1, index, pfn);
    }

    /// Doubts the page, looks up its true owner, and disowns it if that is not the cgroup.
    fn repair(&self, index: u32, pfn: u64) -> bool {
        let cpu = self.world.cpu(0);
        doubt(&cpu, window(index, [pfn])).expect("a cgroup and a page");
        self.truth.load() != owner(index).into() && disown(&cpu, window(index, [pfn])) == Ok(1)
    }
}

/// A page is freed, and perhaps allocated again, to its owner or to another cgroup, while it is doubted. What the
/// probes saw after the doubt is not disowned.
#[test]
fn disown_beside_free_and_allocation() {
    for next in [None, Some(0), Some(1)] {
        explore(move || {
            let world = row();
            world.touch(1, 0, 0);
            let kernel =
                Arc::new(Proc { world: Arc::clone(&world), truth: Checked::new(owner(0).into()) });
            let user = Arc::clone(&kernel);
            beside(
                &world,
                move |_| user.repair(0, 0),
                |_| {
                    kernel.free(0);
                    if let Some(index) = next {
                        kernel.touch(index, 0);
                    }
                },
            );
            assert_eq!(owner_in(entry(&world, 0)), next.map_or(NOBODY, owner));
            world.assert_conserved();
        });
    }
}

/// A page whose free was lost is allocated during a repair: it is uncharged once.
#[test]
fn disown_beside_allocation() {
    for index in [0, 1] {
        explore(move || {
            let world = row();
            world.touch(1, 0, 0);
            let kernel = Arc::new(Proc { world: Arc::clone(&world), truth: Checked::new(0) });
            let user = Arc::clone(&kernel);
            let (is_disowned, ()) =
                beside(&world, move |_| user.repair(0, 0), |_| kernel.touch(index, 0));
            assert_eq!(entry(&world, 0) & !UNCONFIRMED, owner(index));
            world.assert_owned(&[1 - u64::from(index), u64::from(index)]);
            assert_eq!(world.loss(Loss::Healed), u64::from(!is_disowned));
        });
    }
}

/// A repair disowns the last page of a dying cgroup while the page is freed.
#[test]
fn the_last_page_is_disowned_beside_its_free() {
    explore(|| {
        let world = row();
        world.touch(1, 0, 0);
        world.close(0).expect("a tracked cgroup");
        world.flush(0, 1);
        doubt(&world.cpu(0), window(0, [0])).expect("a cgroup and a page");
        let (disowned, ()) = beside(
            &world,
            |world| disown(&world.cpu(0), window(0, [0])).expect("a page is charged"),
            |world| world.free(1, 0, 0),
        );
        world.assert_conserved();
        assert_eq!(u64::from(disowned) + world.uncharging(0), 1);
        world.flush(0, 1);
        assert_eq!(world.release(0), Ok(0));
    });
}

/// A page of a dying cgroup is freed while it is given to the parent, or to nobody: nobody is charged for it afterwards,
/// and the dying cgroup keeps nothing.
#[test]
fn reparent_beside_free() {
    for (is_file, parent) in [(false, 0), (true, 0), (true, NO_INDEX)] {
        explore(move || {
            let world = Model::new(Shape { cpus: 2, ..shape(2, 2) });
            world.add(0, NO_INDEX);
            world.add(1, parent);
            world.touch(1, 1, 0);
            if is_file {
                world.cache(1, 0, 1);
            }
            world.close(1).expect("it is tracked");
            let world = Arc::new(world);
            let (moved, ()) = beside(
                &world,
                |world| reparent(&world.cpu(0), window(1, 0..1)),
                |world| world.free(1, 0, 0),
            );
            assert!(moved.is_ok());
            world.assert_conserved();
            world.assert_owned(&[0, 0]);
            for _ in 0..2 {
                world.flush(1, 0);
                world.flush(1, 1);
            }
            assert_eq!(world.release(1), Ok(0));
        });
    }
}
