//! The smallest limit at which the kernel lets a program live.

use anyhow::Result;
use memstock_tests::PAGE;

use crate::cells::Cell;
use crate::oracle::Run;
use crate::record::Recording;

/// What is left open of it, as a part and in bytes; the larger holds.
const OPEN_PART: u64 = 200;
const OPEN_BYTES: u64 = 512 << 10;

/// Between the largest limit at which it once did not live, and the smallest from which on it always did.
#[derive(Clone, Copy, Debug)]
pub struct Boundary {
    pub dies: u64,
    pub lives: u64,
}

impl Boundary {
    /// As the cells say.
    fn between(cells: &[Cell]) -> Self {
        let deaths = cells.iter().filter(|cell| !cell.lived());
        let dies = deaths.map(|cell| cell.limit.bytes).max().unwrap_or(0);
        let lives = cells.iter().map(|cell| cell.limit.bytes).filter(|&bytes| bytes > dies).min();
        // One that lives nowhere below does so without a limit.
        Self { dies, lives: lives.unwrap_or(dies * 2) }
    }

    /// What the recording says, where nobody has looked.
    pub fn foretold(recording: &Recording) -> Self {
        Self { dies: recording.needed, lives: recording.needed }
    }

    fn is_open(&self) -> bool {
        self.lives - self.dies > (self.lives / OPEN_PART).max(OPEN_BYTES)
    }
}

/// Halves what the cells leave open. The end has to hold as often as a cell has.
pub fn bisect(
    cells: &[Cell],
    repeats: usize,
    run: impl Fn(u64) -> Result<Run>,
) -> Result<Boundary> {
    let mut ends = Boundary::between(cells);
    // What the runs at `lives` are worth: those of a cell were repeated.
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
                // It was luck: from here to the next limit that has been lived at in every run.
                let next = cells.iter().map(|cell| cell.limit.bytes);
                let next = next.filter(|&bytes| bytes > ends.lives).min();
                ends = Boundary { dies: ends.lives, lives: next.unwrap_or(ends.lives * 2) };
                break;
            }
        }
    }
}
