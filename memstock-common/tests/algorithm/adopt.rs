//! What user space may request of the owner map: adopt, doubt, disown and reparent pages.

use std::sync::atomic::Ordering::SeqCst;

use crate::support::plain::{Plain, entry, family_of};
use crate::support::{Shape, limited, owner, window};
use memstock_common::adopt::{Window, adopt, disown, doubt, reparent};
use memstock_common::control::{Refusal, close};
use memstock_common::file::FILE;
use memstock_common::page::UNCONFIRMED;
use memstock_common::{Loss, NO_LIMIT};

/// Counter 0 is the parent of counters 1 and 2; two CPUs.
fn family() -> Plain {
    family_of(Shape { cpus: 2, batch: 8, chunks: 2, ..Shape::default() })
}

#[test]
fn adoption_charges_what_nobody_owns() {
    let world = family();
    world.touch(0, 2, 514);
    assert_eq!(adopt(&world.cpu(0), window(1, 512..520)), Ok(7));
    world.assert_owned(&[0, 7, 1, 0]);
    assert_eq!(entry(&world, 512), owner(1) | UNCONFIRMED);
    assert_eq!(entry(&world, 514), owner(2), "a page that the probes saw is left alone");
    assert_eq!(adopt(&world.cpu(0), window(1, 512..520)), Ok(0), "once only");
    assert_eq!(adopt(&world.cpu(0), window(2, [1023])), Ok(1));
    assert_eq!(adopt(&world.cpu(0), window(2, 1024..1536)), Ok(512));
    world.assert_owned(&[0, 7, 514, 0]);
    assert_eq!(entry(&world, 0) | entry(&world, 1536), 0, "nothing but the window");
}

#[test]
fn adoption_has_no_regard_to_limits() {
    let world = family();
    world.register(limited(3, 0, 2)).unwrap();
    assert_eq!(adopt(&world.cpu(0), window(3, 0..100)), Ok(100));
    assert_eq!((world.usage(3), world.failcnt(3), world.watermark(3)), (100, 0, 100));
    assert!(world.events().is_empty());
    world.assert_owned(&[0, 0, 0, 100]);
}

#[test]
fn an_adopted_page_is_uncharged_when_it_is_freed() {
    let world = family();
    adopt(&world.cpu(0), window(1, 0..64)).unwrap();
    world.free(0, 0, 0);
    world.free(1, 32, 5);
    world.assert_owned(&[0, 31, 0, 0]);
    assert_eq!((entry(&world, 0), entry(&world, 32)), (0, 0));
    // A page that was already free, unseen, is uncharged at its next allocation.
    world.touch(0, 2, 1);
    world.alloc(0, Some(2), 8, 3);
    world.assert_owned(&[0, 22, 9, 0]);
    assert_eq!((entry(&world, 1), entry(&world, 8)), (owner(2), owner(2)), "confirmed");
    assert_eq!(world.loss(Loss::Healed), 9);
}

#[test]
fn a_doubted_page_is_disowned_unless_a_probe_saw_it() {
    let world = family();
    let all = window(1, 0..6);
    world.touch_each(0, 1, 0..4);
    world.touch(0, 2, 4);
    assert_eq!(disown(&world.cpu(0), all), Ok(0), "nothing is doubted");
    assert_eq!(doubt(&world.cpu(0), all), Ok(4), "its own pages only");
    assert_eq!(doubt(&world.cpu(0), all), Ok(0));
    assert_eq!(entry(&world, 0), owner(1) | UNCONFIRMED);
    assert_eq!([4, 5].map(|pfn| entry(&world, pfn)), [owner(2), 0]);
    world.assert_owned(&[0, 4, 1, 0]);

    world.free(0, 0, 0);
    world.free(0, 1, 0);
    world.touch(0, 1, 1);
    world.free(0, 2, 0);
    world.touch(0, 2, 2);
    assert_eq!(disown(&world.cpu(0), window(2, 0..6)), Ok(0), "another's doubts");
    assert_eq!(disown(&world.cpu(0), window(1, 4..6)), Ok(0));
    assert_eq!(disown(&world.cpu(0), all), Ok(1));
    assert_eq!([0, 1, 2, 3].map(|pfn| entry(&world, pfn)), [0, owner(1), owner(2), 0]);
    world.assert_owned(&[0, 1, 2, 0]);
    assert_eq!(world.loss(Loss::Healed), 0);
}

#[test]
fn what_was_adopted_in_error_is_disowned() {
    let world = family();
    adopt(&world.cpu(0), window(1, 0..512)).unwrap();
    assert_eq!(doubt(&world.cpu(0), window(1, 0..512)), Ok(0), "adopted pages are doubted");
    world.touch(0, 1, 7);
    assert_eq!(disown(&world.cpu(0), window(1, 0..256)), Ok(255));
    world.assert_owned(&[0, 257, 0, 0]);
    assert_eq!(world.usage(0), world.usage(1));
}

#[test]
fn a_dying_cgroup_can_be_repaired() {
    let world = family();
    world.touch(0, 1, 0);
    world.close(1).unwrap();
    world.flush(1, 0);
    doubt(&world.cpu(0), window(1, 0..1)).unwrap();
    assert_eq!(world.release(1), Err(Refusal::Busy));
    assert_eq!(disown(&world.cpu(0), window(1, 0..1)), Ok(1));
    assert_eq!(world.release(1), Ok(0));
}

#[test]
fn windows_of_no_counter_or_chunk_are_refused() {
    let world = family();
    let cpu = world.cpu(0);
    for program in [adopt, doubt, disown] {
        assert_eq!(program(&cpu, window(3, 0..1)), Err(Refusal::Missing), "free");
        assert_eq!(program(&cpu, window(9, 0..1)), Err(Refusal::Missing), "no such counter");
        assert_eq!(program(&cpu, window(1, 2048..2560)), Err(Refusal::Missing), "no such chunk");
        assert_eq!(program(&cpu, window(1, [])), Ok(0));
    }
    world.assert_owned(&[0; 4]);
    // A first page in the middle of a window stands for that window.
    let within = Window { first_pfn: 700, ..window(1, 512..514) };
    assert_eq!(adopt(&cpu, within), Ok(2));
    assert_eq!([512, 513].map(|pfn| entry(&world, pfn)), [owner(1) | UNCONFIRMED; 2]);
    assert_eq!(world.register(limited(3, 1, NO_LIMIT)), Ok(0));
}

/// Adopted pages keep their mark as long as they exist, and do not keep a removed cgroup from being released.
#[test]
fn adopted_pages_of_a_dying_cgroup_go_to_the_one_above_with_their_mark() {
    let world = family();
    let cpu = world.cpu(0);
    assert_eq!(adopt(&cpu, Window { is_file: 1, ..window(1, 0..3) }), Ok(3));
    close(&cpu, 1).unwrap();
    assert_eq!(reparent(&cpu, window(1, 0..512)), Ok(3));
    assert_eq!(entry(&world, 0), owner(0) | UNCONFIRMED | FILE);
    assert_eq!(disown(&cpu, window(1, 0..3)), Ok(0), "it is the other's by now");
    assert_eq!(world.release(1), Ok(0));
    assert_eq!(disown(&cpu, window(0, 0..1)), Ok(1));
    world.assert_owned(&[2, 0, 0, 0]);
    world.assert_file_pages(&[2, 0, 0, 0]);
}

/// Two levels are removed. The usage of ancestors does not change, and freed pages have no owner.
#[test]
fn pages_of_a_dying_cgroup_go_to_the_one_above() {
    let world = family();
    world.touch_each(0, 1, 0..4);
    world.alloc(0, Some(1), 4, 2);
    world.cache(0, 4, 4);
    world.touch(1, 2, 8);
    let pages = || window(1, 0..512);
    assert_eq!(reparent(&world.cpu(0), pages()), Err(Refusal::Busy), "it is tracked");
    close(&world.cpu(0), 1).unwrap();
    world.flush(1, 0);
    let (above, needed) = (world.usage(0), world.counter(0).needed_watermark.load(SeqCst));
    assert_eq!(reparent(&world.cpu(0), pages()), Ok(8));
    assert_eq!((world.usage(0), world.usage(1)), (above, 0));
    assert_eq!(world.counter(0).needed_watermark.load(SeqCst), needed);
    world.assert_owned(&[8, 0, 1, 0]);
    world.assert_file_pages(&[4, 0, 0, 0]);
    assert_eq!(reparent(&world.cpu(0), pages()), Ok(0), "once only");
    world.free(1, 4, 2);
    world.assert_owned(&[4, 0, 1, 0]);
    assert_eq!(world.release(1), Ok(0));
    // The top has no parent, so nobody gets its pages.
    close(&world.cpu(0), 0).unwrap();
    assert_eq!(reparent(&world.cpu(0), window(0, 0..512)), Ok(4));
    world.assert_owned(&[0, 0, 1, 0]);
}
