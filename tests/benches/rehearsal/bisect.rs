//! Bisects the smallest limit at which the kernel lets a program live.

use anyhow::Result;
use memstock_tests::PAGE;

use crate::cells::Cell;
use crate::oracle::Run;
use crate::record::Recording;

/// The interval at which the bisection stops: a fraction of the limit, or bytes, whichever is larger.
const OPEN_PART: u64 = 200;
const OPEN_BYTES: u64 = 512 << 10;

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

    fn is_open(&self) -> bool {
        self.lives - self.dies > (self.lives / OPEN_PART).max(OPEN_BYTES)
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
        while ends.is_open() {
            let middle = ends.dies.midpoint(ends.lives).next_multiple_of(PAGE);
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
