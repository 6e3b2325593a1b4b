//! Advice checked by hand.

use std::time::Duration;

use super::*;
use crate::forecast::rehearse::WhatIf;
use crate::recording::{End, Header, Moment, Recording};

fn recording(usage: u64, needed: u64) -> Recording {
    Recording {
        header: Header { page_size: 4096, ..Header::default() },
        moments: vec![Moment { usage: usage << 8, needed: needed << 8, ..Moment::default() }],
        end: Some(End { at: Duration::from_secs(1), ..End::default() }),
        ..Recording::default()
    }
}

#[test]
fn the_highest_of_several_and_a_margin() {
    let (wide, tall) = (recording(800, 300), recording(420, 400));
    let both = [&wide, &tall].map(|one| Rehearsal::new(one, WhatIf::default()));
    let goal = Goal { slower: 0.05, margin: 0.1 };
    let advice = Advice::of(&both, goal);
    assert_eq!((advice.peak >> 20, advice.needed >> 20), (800, 400));
    // 3 % of 400 MiB may be needed without being seen; the margin of a tenth is for that and for other loads.
    assert_eq!((advice.high >> 20, advice.max >> 20), (412, 440));
    let alone = Advice::of(&both[..1], Goal { margin: 0.0, ..goal });
    assert_eq!((alone.high >> 20, alone.max >> 20), (309, 309));
    assert_eq!(Advice::of(&[], goal), Advice::default());
}
