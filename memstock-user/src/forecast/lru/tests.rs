//! Tests both policies by hand, against the curve, and on arbitrary uses.

use proptest::prelude::*;

use super::*;
use crate::forecast::curve::Curve;
use crate::forecast::uses::{Event, Taken};

const BOTH: [Lru; 2] = [Lru::Classic, Lru::MultiGen];

fn of(whats: impl IntoIterator<Item = What>, pages: usize) -> Uses {
    let events = whats.into_iter().map(|what| Event { part: 3, more: 0, what }).collect();
    let taken = vec![Taken { needed: 100, ..Taken::default() }, Taken::default()];
    Uses { events, taken, file_of: vec![0; pages], ..Uses::default() }
}

fn reread(uses: &Uses, lru: Lru, limit: u64) -> u64 {
    let rereads = simulate(uses, lru, limit);
    let pages: f64 = rereads.by_file.iter().sum();
    assert_eq!(rereads.by_time[3], pages);
    pages.round() as u64
}

fn read(page: u32) -> [What; 2] {
    let used = Use { page, weight: 1 };
    [What::Enter(used), What::First(used)]
}

fn again(page: u32) -> What {
    What::Again(Use { page, weight: 1 })
}

#[test]
fn a_stream_is_not_read_again_at_any_limit() {
    let uses = of((0..500).flat_map(read), 500);
    for lru in BOTH {
        assert_eq!([0, 1, 100, 501].map(|limit| reread(&uses, lru, limit)), [0; 4], "{lru:?}");
    }
}

#[test]
fn with_room_for_all_nothing_is_read_again() {
    let turns = (0..5).flat_map(|_| (0..50).map(again));
    let uses = of([What::Taken(0)].into_iter().chain((0..50).flat_map(read)).chain(turns), 50);
    for lru in BOTH {
        assert_eq!((reread(&uses, lru, 150), reread(&uses, lru, 99)), (0, 250), "{lru:?}");
    }
}

#[test]
fn a_need_for_a_moment_takes_all() {
    let whats = (0..50).flat_map(read).chain([What::Taken(0), What::Taken(1)]);
    let uses = of(whats.chain((0..50).map(again)), 50);
    for lru in BOTH {
        assert_eq!([100, 120, 150].map(|limit| reread(&uses, lru, limit)), [50, 30, 0], "{lru:?}");
    }
}

/// Two windows of 1,000 pages are in the cache at once. With room for both nothing is lost; with less, a part of each
/// window goes before it is used, and is read again and again, the less in time the less room there is.
#[test]
fn what_is_read_ahead_and_evicted_is_read_over_and_over() {
    let window = |n: u32| (1000 * n..1000 * (n + 1)).map(|page| Use { page, weight: 1 });
    let rounds =
        (0..10).flat_map(|n| window(n + 1).map(What::Enter).chain(window(n).map(What::First)));
    let whats = window(0).map(What::Enter).chain(rounds);
    let uses = Uses { ahead: 2000, ..of(whats, 11_000) };
    for lru in BOTH {
        let rereads = [2000, 1500, 1000, 250, 1].map(|room| reread(&uses, lru, room));
        // At least 128 pages are read at once.
        assert_eq!(rereads, [0, 15_556, 22_000, 44_000, 61_492], "{lru:?}");
        let in_time = [1500, 1000, 1].map(|room| simulate(&uses, lru, room).in_time.round() as u64);
        assert_eq!(in_time, [7778, 0, 0], "{lru:?}");
    }
}

/// The second read is ahead of its use, as the first was.
#[test]
fn what_is_read_again_is_read_ahead_as_well() {
    let again = (0..2).flat_map(|_| (0..1000).map(again));
    let uses = Uses { ahead: 800, ..of((0..1000).flat_map(read).chain(again), 1000) };
    let rereads = [800, 600, 400, 200].map(|room| reread(&uses, Lru::Classic, room));
    assert_eq!(rereads, [2000, 5111, 6400, 8223]);
}

/// Reclaim finds only dirty pages and has all of them written; the others are clean then, and are not written again.
#[test]
fn dirty_pages_without_room_are_all_written_at_once() {
    let write = |page| What::Dirty(Use { page, weight: 2 });
    let written = |whats: Vec<What>, limit| {
        let uses = of(whats, 100);
        BOTH.map(|lru| simulate(&uses, lru, limit).written)
    };
    let file = || (0..100).map(write);
    assert_eq!(written(file().collect(), 200), [0; 2]);
    assert_eq!(written(file().collect(), 199), [200; 2]);
    // 75 pages have room for 150, and the other 25 take the place of clean ones.
    assert_eq!(written(file().collect(), 150), [152; 2]);
    assert_eq!(written(file().collect(), 50), [156; 2]);
    // What is removed before is never written, and what enters again is clean.
    let removed = (0..100).map(What::Leave);
    let read = (0..100).map(|page| What::Enter(Use { page, weight: 2 }));
    assert_eq!(written(file().chain(removed).chain(read).collect(), 200), [0; 2]);
    let rest = file().chain((0..50).map(What::Leave)).chain([What::Taken(0)]);
    assert_eq!(written(rest.collect(), 200), [0; 2]);
}

/// A batch that has clean pages is taken without its dirty ones, until they are all that is left.
#[test]
fn dirty_pages_among_clean_ones_are_not_written() {
    let one = |page| Use { page, weight: 1 };
    let copied = (0..100).flat_map(|n| {
        let written = 100 + n;
        [
            What::Enter(one(n)),
            What::First(one(n)),
            What::Enter(one(written)),
            What::Dirty(one(written)),
        ]
    });
    let uses = of(copied, 200);
    for lru in BOTH {
        let written = [200, 150, 101, 90].map(|limit| simulate(&uses, lru, limit).written);
        assert_eq!(written[..3], [0; 3], "{lru:?}");
        assert!((80..=100).contains(&written[3]), "{lru:?} {written:?}");
    }
}

/// An LRU keeps nothing of what is in use, since more passes by than there is room for; the kernel keeps it.
#[test]
fn a_stream_does_not_push_out_what_is_in_use() {
    let mut whats: Vec<_> = (0..40).flat_map(read).collect();
    whats.extend((0..40).map(again).chain((0..40).map(again)));
    let mut next = 40;
    for _ in 0..20 {
        whats.extend((next..next + 200).flat_map(read));
        next += 200;
        whats.extend((0..40).map(again));
    }
    let uses = of(whats, next as usize);
    assert_eq!(Curve::of(&uses).rereads(120)[3], 800);
    for lru in BOTH {
        assert!(reread(&uses, lru, 120) <= 80, "{lru:?}: {}", reread(&uses, lru, 120));
    }
}

/// If a ring almost fits, no page is still cached when its turn comes again.
#[test]
fn of_a_ring_that_does_not_fit_nothing_is_kept() {
    let rounds = (0..50).flat_map(|_| (0..100).map(again));
    let ring = of((0..100).flat_map(read).chain(rounds), 100);
    assert_eq!((Curve::of(&ring).rereads(90)[3], reread(&ring, Lru::Classic, 90)), (5000, 5000));
}

/// Pages that come back soon enough to have fitted in place of active ones are activated, and the active ones make
/// room.
#[test]
fn what_is_active_no_more_makes_room() {
    let active = (85..125).flat_map(read).chain((85..125).map(again));
    let rounds = (0..50).flat_map(|_| (0..85).map(again));
    let both = of(active.chain((0..85).flat_map(read)).chain(rounds), 125);
    assert_eq!(Curve::of(&both).rereads(90)[3], 0);
    assert!(reread(&both, Lru::Classic, 90) < 300, "{}", reread(&both, Lru::Classic, 90));
}

proptest! {
    /// Never more is read again than was used again.
    #[test]
    fn rereads_are_bounded(
        steps in prop::collection::vec((0_u8..8, 0_u32..30, 1_u32..5), 0..300),
        limit in 0_u64..200,
    ) {
        let mut nr_again = 0;
        let whats: Vec<_> = steps.iter().map(|&(what, page, weight)| {
            let used = Use { page, weight };
            match what {
                0 => What::Taken(page % 2),
                1 => What::Enter(used),
                2 => What::Leave(page),
                3 => What::Dirty(used),
                _ => { nr_again += u64::from(weight); What::Again(used) }
            }
        }).collect();
        let uses = of(whats, 30);
        for lru in BOTH {
            prop_assert!(reread(&uses, lru, limit) <= nr_again);
        }
    }
}
