//! What each kind of access turns into.

use super::*;
use crate::recording::{File, Header, Moment};

fn access(ms: u64, kind: AccessKind, index: u64, pages: u32) -> Access {
    Access { at: Duration::from_millis(ms), file: 0, index, pages, one_in: 4, kind }
}

fn uses(command: &[&str], accesses: &[Access]) -> Uses {
    uses_of(File::default(), command, accesses)
}

fn uses_of(file: File, command: &[&str], accesses: &[Access]) -> Uses {
    let recording = Recording {
        files: vec![file],
        header: Header {
            command: command.iter().map(|&word| word.into()).collect(),
            ..Header::default()
        },
        moments: vec![Moment { needed: 7, ..Moment::default() }],
        accesses: accesses.to_vec(),
        ..Recording::default()
    };
    Uses::of(&recording, &Timeline::of(&recording, 0))
}

fn whats(uses: &Uses) -> Vec<What> {
    uses.each().map(|(_, what)| what).collect()
}

#[test]
fn the_read_that_brought_it_in_is_not_the_second() {
    let on = Use { page: 0, weight: 4 };
    let reads = [
        access(1, AccessKind::Added, 9, 1),
        access(2, AccessKind::Read, 9, 1),
        access(3, AccessKind::Read, 3, 0),
        access(900, AccessKind::Read, 9, 1),
        access(901, AccessKind::Removed, 9, 1),
    ];
    let uses = uses(&["cat"], &reads);
    assert_eq!(
        whats(&uses),
        [What::Taken(0), What::Enter(on), What::First(on), What::Again(on), What::Leave(0)]
    );
    assert_eq!(uses.taken[0].all(), 7);
}

#[test]
fn how_far_ahead_is_what_entered_meanwhile() {
    let reads = [
        access(1, AccessKind::Added, 0, 8),
        access(2, AccessKind::Read, 0, 8),
        access(3, AccessKind::Added, 16, 2),
        // Only pages that are used soon count as read ahead.
        access(4, AccessKind::Read, 16, 1),
        access(400, AccessKind::Added, 32, 16),
        access(401, AccessKind::Read, 17, 1),
    ];
    // After the first page of a block, seven more entered, each standing for four.
    assert_eq!(uses(&["cat"], &reads).ahead, 28);
}

/// The use of a page can be missed, so that the next one seems to be the first.
#[test]
fn how_far_ahead_does_not_depend_on_one_in_a_hundred() {
    let missed = [access(1, AccessKind::Added, 1600, 1)];
    let pages = (0..200).flat_map(|n| {
        let added = access(2 + n, AccessKind::Added, 16 * (n % 100), 2);
        [added, Access { kind: AccessKind::Read, ..added }]
    });
    let late = [access(203, AccessKind::Read, 1600, 1)];
    let all: Vec<_> = missed.into_iter().chain(pages).chain(late).collect();
    assert_eq!(uses(&["cat"], &all).ahead, 4);
}

#[test]
fn what_was_written_is_read_again_later() {
    let on = Use { page: 0, weight: 4 };
    let written = [
        access(1, AccessKind::Added, 9, 1),
        access(1, AccessKind::Dirtied, 9, 1),
        access(2, AccessKind::Read, 9, 1),
        access(3, AccessKind::Dirtied, 9, 1),
    ];
    let uses = uses(&["sort"], &written);
    assert_eq!(
        whats(&uses)[1..],
        [What::Enter(on), What::Dirty(on), What::Again(on), What::Dirty(on)]
    );
    assert_eq!((uses.written, uses.writes.all, uses.ahead), (4, 8, 0), "twice, and not read ahead");
}

#[test]
fn what_was_written_counts_until_it_is_removed_or_mapped() {
    let entered = [access(1, AccessKind::Added, 0, 16), access(2, AccessKind::Dirtied, 0, 16)];
    let with = |more| uses(&["dd"], &[&entered[..], &[more]].concat()).written;
    assert_eq!(with(access(3, AccessKind::Read, 0, 16)), 64);
    assert_eq!(with(access(3, AccessKind::Removed, 0, 4)), 48);
    assert_eq!(with(access(3, AccessKind::Mapped, 0, 4)), 48);
}

/// One that was there before the recording, and one that somebody else has brought in.
#[test]
fn what_is_overwritten_is_dirty_as_well() {
    let on = Use { page: 0, weight: 4 };
    let written = [access(1, AccessKind::Dirtied, 9, 1)];
    assert_eq!(whats(&uses(&[], &written))[1..], [What::Enter(on), What::Dirty(on)]);
    assert_eq!(uses(&["dd"], &written).others, 4);
}

#[test]
fn a_page_that_is_read_in_pieces_is_used_once() {
    let pieces = [
        access(1, AccessKind::Added, 0, 2),
        access(2, AccessKind::Read, 0, 2),
        access(2, AccessKind::Read, 1, 1),
        access(2, AccessKind::Read, 1, 1),
    ];
    assert_eq!(whats(&uses(&["cat"], &pieces)).len(), 5);
}

/// An hour has millions of accesses.
#[test]
fn pages_in_a_row_are_one_event() {
    let all = [
        access(1, AccessKind::Added, 0, 16),
        access(2, AccessKind::Read, 0, 16),
        access(3, AccessKind::Read, 4, 3),
        access(4, AccessKind::Removed, 0, 16),
    ];
    let uses = uses(&["cat"], &all);
    let events: Vec<_> = uses.events.iter().map(|event| (event.what, event.more)).collect();
    let on = |page| Use { page, weight: 4 };
    assert_eq!(
        events,
        [
            (What::Taken(0), 0),
            (What::Enter(on(0)), 15),
            (What::First(on(0)), 15),
            (What::Again(on(4)), 2),
            (What::Leave(0), 15)
        ]
    );
    assert_eq!(uses.each().count(), 1 + 16 + 16 + 3 + 16);
}

#[test]
fn somebody_elses_cache_costs_nothing_here() {
    let read = [access(1, AccessKind::Read, 0, 3), access(2, AccessKind::Mapped, 0, 1)];
    let others = uses(&["cat"], &read);
    assert_eq!((whats(&others).len(), others.others), (1, 12));
    // A cgroup that was already running brought them in before.
    let own = uses(&[], &read);
    assert_eq!((whats(&own).len(), own.others), (7, 0));
}

/// Only what was used before is known not to be of a folio that a fault maps.
#[test]
fn a_fault_maps_what_was_read_ahead() {
    let mapped = [
        access(1, AccessKind::Added, 0, 8),
        access(2, AccessKind::Read, 0, 1),
        access(3, AccessKind::Mapped, 1, 1),
        access(4, AccessKind::Added, 8, 2),
        access(5, AccessKind::Mapped, 3, 1),
        access(6, AccessKind::Removed, 0, 8),
    ];
    let taken = |uses: &Uses| {
        let taken = uses.taken.iter().map(|taken| (taken.mapped, taken.text));
        taken.collect::<Vec<_>>()
    };
    assert_eq!(taken(&uses(&["grep"], &mapped)), [(0, 0), (28, 0), (36, 0), (8, 0)]);
    // Of a program, only what faulted.
    let program = File { is_program: true, ..File::default() };
    assert_eq!(taken(&uses_of(program, &["cc1"], &mapped)), [(0, 0), (0, 4), (0, 8), (0, 0)]);
}

#[test]
fn what_is_mapped_is_taken_until_it_leaves() {
    let mapped = [
        access(1, AccessKind::Added, 0, 2),
        access(2, AccessKind::Mapped, 0, 2),
        access(3, AccessKind::Mapped, 0, 2),
        access(4, AccessKind::Read, 0, 2),
        access(5, AccessKind::Removed, 0, 1),
    ];
    let uses = uses(&["cc1"], &mapped);
    let taken: Vec<_> = uses.taken.iter().map(|taken| taken.mapped).collect();
    assert_eq!(taken, [0, 8, 4]);
    assert_eq!(
        whats(&uses)[5..],
        [
            What::First(Use { page: 1, weight: 4 }),
            What::Leave(1),
            What::Taken(1),
            What::Leave(0),
            What::Taken(2)
        ]
    );
}
