//! The charge path against formulas. On one CPU, with one page per fault, every number has a closed form in the batch
//! and the limit.

use crate::support::Shape;
use crate::support::plain::Plain;
use memstock_common::event::EventKind;
use memstock_common::fault::Consumed;
use memstock_common::{MAX_DEPTH, Word};

const BATCHES: [u32; 11] = [1, 2, 3, 7, 8, 31, 32, 33, 64, 256, 1024];

fn set_limit(world: &Plain, index: u32, memsw: bool, nr_pages: u64) {
    let counter = world.counter(index);
    let limit = if memsw { &counter.memsw_limit } else { &counter.memory_limit };
    Word::store(limit, nr_pages);
}

#[test]
fn usage_is_the_next_multiple_of_the_batch() {
    for batch in BATCHES {
        for memsw in [false, true] {
            let shape = Shape { batch, memsw, cgroups: 1, chunks: 2, ..Shape::default() };
            let world = Plain::chain(shape);
            let batch = u64::from(batch);
            for n in 1..=1025_u64 {
                let consumed = world.demand(0, 0);
                let is_miss = (n - 1) % batch == 0;
                assert_eq!(consumed, if is_miss { Consumed::Miss } else { Consumed::Hit });
                let batches = n.div_ceil(batch);
                assert_eq!(world.usage(0), batches * batch, "{n} pages, batches of {batch}");
                assert_eq!(world.watermark(0), batches * batch);
                // One page of each batch goes to the fault that missed.
                assert_eq!(world.charged(0), [n - batches, batches]);
                assert_eq!(world.faults(0), n);
                assert_eq!(Word::load(&world.slot(0, 0).refills), batches);
                world.assert_owned(&[n]);
            }
            assert_eq!(world.failcnt(0), 0);
            assert!(world.events().is_empty());
        }
    }
}

#[test]
fn every_level_is_charged_alike() {
    for depth in 1..=MAX_DEPTH {
        for batch in [1, 5, 32] {
            let world =
                Plain::chain(Shape { batch, memsw: true, cgroups: depth, ..Shape::default() });
            let mut owned = vec![0; depth as usize];
            for n in 1..=100_u64 {
                world.demand(0, depth - 1);
                owned[depth as usize - 1] = n;
                let due = n.next_multiple_of(batch.into());
                for index in 0..depth {
                    assert_eq!(world.usage(index), due, "level {index} of {depth}");
                    assert_eq!(world.watermark(index), due);
                    assert_eq!(Word::load(&world.counter(index).memsw.watermark), due);
                }
                world.assert_owned(&owned);
            }
            for index in 0..depth - 1 {
                assert_eq!((world.faults(index), world.charged(index)), (0, [0, 0]));
            }
        }
    }
}

/// The limit sits on memory or on memory+swap, at the top or at the leaf: the formula is the same.
#[test]
fn a_limit_admits_exactly_its_pages() {
    const PLACES: [(bool, u32); 4] = [(false, 0), (false, 2), (true, 0), (true, 2)];
    for batch in [1, 2, 3, 7, 8, 31, 32, 33, 64] {
        for limit in 1..=256_u64 {
            for (memsw, limited) in PLACES {
                let world = Plain::chain(Shape { batch, memsw, cgroups: 3, ..Shape::default() });
                set_limit(&world, limited, memsw, limit);
                assert_admits(&world, limited, memsw, limit);
            }
        }
    }
}

fn assert_admits(world: &Plain, limited: u32, memsw: bool, limit: u64) {
    let batch = u64::from(world.shape.batch);
    let counter = world.counter(limited);
    let resource = if memsw { &counter.memsw } else { &counter.memory };
    for n in 1..=limit {
        world.demand(0, 2);
        assert!(Word::load(&resource.usage) <= limit, "{n} pages under {limit}");
        assert_eq!(world.sum(2, |share| &share.forced), 0, "{n} pages under {limit}");
    }
    world.assert_owned(&[0, 0, limit]);
    // Whole batches while they fit, then one page at a time, each after a batch that failed.
    let singles = limit % batch;
    assert_eq!(Word::load(&resource.usage), limit);
    assert_eq!(Word::load(&resource.watermark), limit);
    assert_eq!(Word::load(&resource.failcnt), singles);
    assert_eq!(world.sum(2, |share| &share.singles), singles);
    let missed = limit / batch + singles;
    assert_eq!(world.charged(2), [limit - missed, missed]);
    assert!(world.events().iter().all(|event| event.kind == EventKind::LimitNear as u32));

    world.demand(0, 2);
    assert_eq!(world.sum(2, |share| &share.forced), 1);
    assert_eq!(Word::load(&resource.usage), limit + 1);
    assert_eq!(Word::load(&resource.failcnt), singles + if batch > 1 { 2 } else { 1 });
    let hits = world.events().iter().filter(|e| e.kind == EventKind::LimitHit as u32).count();
    assert_eq!(hits, 1);
    world.assert_owned(&[0, 0, limit + 1]);
}

#[test]
fn a_limit_of_zero_forces_every_page() {
    for batch in BATCHES {
        for depth in 1..=MAX_DEPTH {
            let world = Plain::chain(Shape { batch, cgroups: depth, ..Shape::default() });
            set_limit(&world, 0, false, 0);
            let mut owned = vec![0; depth as usize];
            for n in 1..=3 {
                assert_eq!(world.demand(0, depth - 1), Consumed::Miss);
                owned[depth as usize - 1] = n;
                assert_eq!(world.sum(depth - 1, |share| &share.forced), n);
                assert_eq!(world.charged(depth - 1), [0, n]);
                assert_eq!(world.usage(0), n);
                assert_eq!(world.stocked(), 0);
                world.assert_owned(&owned);
            }
        }
    }
}
