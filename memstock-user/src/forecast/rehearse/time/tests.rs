//! How much of the disk's time is waited for.

use crate::forecast::assume::assumes;
use crate::forecast::rehearse::tests::{MIB, at, read_twice, recording};
use crate::forecast::rehearse::{Rehearsal, WhatIf};
use crate::recording::{AccessKind, Recording};

/// The disk took 1.024 s for 2048 pages, and tasks waited for a part of that. They are read again in 1.5 s.
#[test]
fn reading_again_takes_as_long_as_it_was_waited_for() {
    let mut recording = recording();
    for moment in &mut recording.moments[2..] {
        moment.usage = 300 * MIB;
    }
    recording.end.as_mut().unwrap().read_ns_per_page = Some(500_000);
    recording.accesses = read_twice(8 * MIB);
    for (access, ms) in recording.accesses[256..].iter_mut().zip((8000..).step_by(12)) {
        access.at = at(ms);
    }
    let slowdown = |recording: &Recording| {
        let rehearsal = Rehearsal::new(recording, WhatIf::default());
        let said = assumes(&rehearsal).into_iter().find(|said| said.contains("io.pressure"));
        (rehearsal.judge(206 << 20).slowdown.unwrap(), said)
    };
    // Of 512 pages that have no room.
    let is = |slower: f64, expected: f64| assert!((slower - expected).abs() < 1e-4, "{slower}");
    for (stalled_us, part) in [(0, 0.0), (256_000, 0.25), (1_024_000, 1.0), (u64::MAX, 1.0)] {
        recording.end.as_mut().unwrap().io_stalled_us = Some(stalled_us);
        let (slower, said) = slowdown(&recording);
        is(slower, 0.0256 * part);
        assert_eq!(said.is_some(), part < 1.0, "{said:?}");
    }
    recording.end.as_mut().unwrap().io_stalled_us = Some(256_000);
    let (_, said) = slowdown(&recording);
    assert!(said.unwrap().starts_with("reading again stalls tasks for 25 % of the disk's time"));
    // In other orders the kernel does not read ahead.
    let mut random = recording.clone();
    random.accesses[256..].reverse();
    for (access, ms) in random.accesses[256..].iter_mut().zip((8000..).step_by(12)) {
        access.at = at(ms);
    }
    is(slowdown(&random).0, 0.0256);
    // Nobody computes for longer than it took: 50 ms, a step of the simulation.
    let mut at_once = recording.clone();
    at_once.accesses[256..].iter_mut().for_each(|access| access.at = at(8000));
    at_once.end.as_mut().unwrap().io_stalled_us = Some(0);
    is(slowdown(&at_once).0, 0.0256 - 0.005);
    // Of a file that was written, nothing is known, nor of a few pages.
    let mut written = recording.clone();
    for access in &mut written.accesses[128..256] {
        access.kind = AccessKind::Dirtied;
    }
    let mut few = recording;
    few.accesses.retain(|access| access.index < MIB - 16);
    is(slowdown(&written).0, 0.0256);
    assert!(slowdown(&few).1.is_none());
}
