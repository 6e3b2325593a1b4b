//! Bisects the smallest limit at which the kernel lets a program live, and the smallest at which it is not slow.

use anyhow::Result;
use memstock::forecast::rehearse::SLOW;
use memstock_tests::PAGE;

use crate::cells::Cell;
use crate::oracle::Run;
use crate::record::Recording;

/// The interval at which the bisection stops: a fraction of the limit, or bytes, whichever is larger.
const OPEN_PART: u64 = 200;
const OPEN_BYTES: u64 = 512 << 10;
/// The same for how fast it is, which is less sharp.
const OPEN_PART_OF_SPEED: u64 = 50;
/// Runs with and without a limit, taking turns, that tell whether it is slow there.
const PAIRS: usize = 3;

/// The largest limit at which the program once died, and the smallest from which on it always lived.
#[derive(Clone, Copy, Debug)]
pub struct Boundary {
    pub dies: u64,
    pub lives: u64,
}

impl Boundary {
    /// As the cells show.
    fn between(cells: &[Cell]) -> Self {
        let deaths = cells.iter().filter(|cell| !cell.lived());
        let dies = deaths.map(|cell| cell.limit.bytes).max().unwrap_or(0);
        let lives = cells.iter().map(|cell| cell.limit.bytes).filter(|&bytes| bytes > dies).min();
        // If it lived at no limit, assume a larger one: it lives without a limit.
        Self { dies, lives: lives.unwrap_or(dies * 2) }
    }

    /// The recording's figure, without a bisection.
    pub fn foretold(recording: &Recording) -> Self {
        Self { dies: recording.needed, lives: recording.needed }
    }

    fn is_open(&self, part: u64) -> bool {
        self.lives - self.dies > (self.lives / part).max(OPEN_BYTES)
    }

    fn middle(&self) -> u64 {
        self.dies.midpoint(self.lives).next_multiple_of(PAGE)
    }
}

/// Bisects the interval that the cells leave open. The program must live at the result in as many runs as at a cell.
pub fn bisect(
    cells: &[Cell],
    repeats: usize,
    run: impl Fn(u64) -> Result<Run>,
) -> Result<Boundary> {
    let mut ends = Boundary::between(cells);
    // Whether the runs at `lives` were repeated, as those of a cell are.
    let mut is_sure = true;
    loop {
        while ends.is_open(OPEN_PART) {
            let middle = ends.middle();
            if run(middle)?.lived() {
                (ends.lives, is_sure) = (middle, false);
            } else {
                ends.dies = middle;
            }
        }
        if is_sure {
            return Ok(ends);
        }
        is_sure = true;
        for _ in 1..repeats {
            if !run(ends.lives)?.lived() {
                // The first run was luck: go on between here and the next limit at which every run lived.
                let next = cells.iter().map(|cell| cell.limit.bytes);
                let next = next.filter(|&bytes| bytes > ends.lives).min();
                ends = Boundary { dies: ends.lives, lives: next.unwrap_or(ends.lives * 2) };
                break;
            }
        }
    }
}

/// The smallest limit from which on it takes at most 5 % longer; `lives` if it is nowhere slower.
pub fn fast_from(
    cells: &[Cell],
    lives: u64,
    run: impl Fn(Option<u64>) -> Result<Run>,
) -> Result<u64> {
    let is_slow = |limit: u64| -> Result<bool> {
        let (mut with, mut without) = (f64::MAX, f64::MAX);
        for _ in 0..PAIRS {
            let run_there = run(Some(limit))?;
            if !run_there.lived() {
                return Ok(true);
            }
            // The fastest, since other work only makes it slower.
            with = with.min(run_there.wall.as_secs_f64());
            without = without.min(run(None)?.wall.as_secs_f64());
        }
        Ok(with > without * (1.0 + SLOW))
    };
    let mut ends = Boundary { dies: 0, lives };
    for cell in cells.iter().rev().filter(|cell| cell.limit.bytes > lives) {
        let limit = cell.limit.bytes;
        if cell.seems_slow() && is_slow(limit)? {
            let above = cells.iter().map(|cell| cell.limit.bytes).find(|&bytes| bytes > limit);
            ends = Boundary { dies: limit, lives: above.unwrap_or(limit * 2) };
            break;
        }
    }
    while ends.dies > 0 && ends.is_open(OPEN_PART_OF_SPEED) {
        let middle = ends.middle();
        *(if is_slow(middle)? { &mut ends.dies } else { &mut ends.lives }) = middle;
    }
    Ok(ends.lives)
}
