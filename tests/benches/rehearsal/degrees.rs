//! Compares the further predictions for each limit with what the kernel did: which of the four verdicts, how much is
//! read again, and how much slower the program is.

use std::fmt;

use memstock::forecast::rehearse::{Rehearsal, Row, SLOW, WhatIf};
use memstock::forecast::verdict::Verdict;

use crate::Rehearsed;
use crate::cells::{Cell, near};
use crate::oracle::Run;
use crate::table::{Table, mib, quoted};

/// This near to the kernel's peak, runs differ in whether they hit the limit at all.
const PEAK_PART: f64 = 0.02;
/// In this range of slowdown, runs differ in whether they are slow: even without a limit they differ by some percent.
const UNSURE: std::ops::Range<f64> = SLOW / 2.0..2.0 * SLOW;
/// A predicted amount of rereads is right within this fraction, or within this many bytes.
const REREAD_PART: f64 = 0.25;
const REREAD_BYTES: f64 = (16 << 20) as f64;
/// From this slowdown on, a program is much slower.
const MUCH_SLOWER: f64 = 0.5;

/// What happened at a limit.
struct Happened {
    verdict: Verdict,
    reread: u64,
    slowdown: f64,
    /// The relative spread of runs without a limit: a smaller slowdown may be none.
    spread: f64,
}

impl Happened {
    /// What happened at the `n`th limit.
    fn at(n: usize, one: &Rehearsed) -> Self {
        let cell = &one.cells[n];
        // The neighbouring limits' runs were shortly before and after.
        let beside = one.cells.iter().take(n + 2).skip(n.saturating_sub(1));
        let beside: Vec<_> = beside.filter_map(|cell| cell.free.as_ref()).collect();
        let free = median(beside.iter().map(|run| seconds(run)).collect());
        let slowdown = median(cell.runs.iter().map(seconds).collect()) / free - 1.0;
        let all: Vec<_> =
            one.cells.iter().filter_map(|cell| cell.free.as_ref()).map(seconds).collect();
        let spread = all.iter().copied().fold(0.0, f64::max) / median(all) - 1.0;
        let verdict = if !cell.lived() {
            Verdict::Oom
        } else if cell.runs.iter().all(|run| run.hits == 0) {
            Verdict::Fits
        } else if slowdown >= SLOW {
            Verdict::Slow
        } else {
            Verdict::Reclaims
        };
        let read = |run: &Run| run.read as f64;
        let reread = median(cell.runs.iter().map(read).collect())
            - median(beside.into_iter().map(read).collect());
        // Less than without a limit, or no run that lived: nothing.
        let reread = reread.max(0.0) as u64;
        Self { verdict, reread, slowdown, spread }
    }
}

/// NaN if there are none.
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    let at = |n: usize| of.get(n).copied().unwrap_or(f64::NAN);
    at(of.len().saturating_sub(1) / 2).midpoint(at(of.len() / 2))
}

fn seconds(run: &Run) -> f64 {
    run.wall.as_secs_f64()
}

/// A limit with its prediction and what happened.
struct Pair<'a> {
    one: &'a Rehearsed,
    cell: &'a Cell,
    said: Row,
    happened: Happened,
}

impl Pair<'_> {
    /// Whether runs at this limit differ among themselves.
    fn is_near(&self) -> bool {
        let limit = self.cell.limit.bytes;
        let of_peak = limit.abs_diff(self.one.peak) as f64 / self.one.peak as f64;
        let lives = self.one.boundary.lives;
        let may_be_slow = self.happened.verdict != Verdict::Oom
            && self.happened.verdict != Verdict::Fits
            && (UNSURE.start..self.happened.spread.max(UNSURE.end))
                .contains(&self.happened.slowdown);
        limit.abs_diff(lives) <= near(lives)
            || of_peak <= PEAK_PART
            || may_be_slow
            || self.said.is_near
    }

    fn is_right(&self) -> bool {
        self.said.verdict == self.happened.verdict
    }

    /// Whether the kernel reclaimed there, so that something may be read again.
    fn is_middle(&self) -> bool {
        self.cell.lived() && self.happened.verdict != Verdict::Fits && self.said.reread.is_some()
    }

    fn knew_reread(&self) -> bool {
        let (said, was) = (self.said.reread.unwrap_or(0) as f64, self.happened.reread as f64);
        (said - was).abs() <= (REREAD_PART * was).max(REREAD_BYTES)
    }

    fn knew_slowdown(&self) -> bool {
        let said = self.said.slowdown.unwrap_or(0.0);
        if said.max(self.happened.slowdown) < self.happened.spread {
            // Neither can be distinguished from no slowdown.
            return true;
        }
        let bucket = |part: f64| (part >= SLOW, part >= MUCH_SLOWER);
        bucket(said) == bucket(self.happened.slowdown)
    }
}

/// The comparisons of all programs.
pub struct Degrees<'a>(Vec<Pair<'a>>);

impl<'a> Degrees<'a> {
    pub fn of(all: &'a [Rehearsed]) -> Self {
        let mut pairs = Vec::new();
        for one in all {
            let rehearsal = Rehearsal::new(&one.recording.data, WhatIf::default());
            pairs.extend(one.cells.iter().enumerate().map(|(n, cell)| {
                let said = rehearsal.judge(cell.limit.bytes);
                Pair { one, cell, said, happened: Happened::at(n, one) }
            }));
        }
        Self(pairs)
    }

    fn score(
        &self,
        name: &str,
        among: impl Fn(&Pair<'_>) -> bool,
        right: impl Fn(&Pair<'_>) -> bool,
    ) -> String {
        let among: Vec<_> = self.0.iter().filter(|pair| among(pair)).collect();
        let right = among.iter().filter(|pair| right(pair)).count();
        let part = 100.0 * right as f64 / among.len().max(1) as f64;
        format!("{name}: {right} of {} ({part:.0} %)", among.len())
    }
}

impl fmt::Display for Degrees<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "program",
            "limit",
            "said",
            "read again",
            "slower",
            "happened",
            "read again",
            "slower",
            "",
        ]);
        for pair in self.0.iter().filter(|pair| pair.is_middle() || !pair.is_right()) {
            let Pair { one, cell, said, happened } = pair;
            table.row([
                quoted(one),
                mib(cell.limit.bytes),
                said.verdict.name().to_owned(),
                said.reread.map_or("-".to_owned(), mib),
                said.slowdown.map_or("-".to_owned(), |part| format!("{:.0} %", 100.0 * part)),
                happened.verdict.name().to_owned(),
                mib(happened.reread),
                format!("{:.0} %", 100.0 * happened.slowdown),
                match (pair.is_right(), pair.is_near()) {
                    (true, _) => String::new(),
                    (false, true) => "near".to_owned(),
                    (false, false) => "**wrong**".to_owned(),
                },
            ]);
        }
        writeln!(f, "{table}")?;
        let scores = [
            self.score(
                "verdicts right, away from a boundary",
                |pair| !pair.is_near(),
                |pair| pair.is_right(),
            ),
            self.score("of all", |_| true, |pair| pair.is_right()),
            self.score(
                "read again within 25 % or 16 MiB, where the kernel reclaimed",
                |pair| pair.is_middle(),
                |pair| pair.knew_reread(),
            ),
            self.score(
                "slower by less than 5 %, 5 to 50 %, more: right",
                |pair| pair.is_middle(),
                |pair| pair.knew_slowdown(),
            ),
        ];
        write!(f, "{}", scores.join("; "))
    }
}
