//! Finds the slowest of tests that run one at a time, by the times between libtest's lines: each comes when its test
//! has ended.

use std::fmt;
use std::time::{Duration, Instant};

/// How many tests are named.
const MOST: usize = 10;

/// How long each test took.
pub struct Slowest {
    last: Instant,
    times: Vec<(Duration, String)>,
}

impl Slowest {
    /// Starts the clock of the first test.
    pub fn new() -> Self {
        Self { last: Instant::now(), times: Vec::new() }
    }

    /// Takes a line that libtest has just printed.
    pub fn line(&mut self, line: &str) {
        self.line_at(line, Instant::now());
    }

    fn line_at(&mut self, line: &str, now: Instant) {
        let took = now.duration_since(self.last);
        self.last = now;
        let test = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "));
        if let Some((name, _)) = test {
            self.times.push((took, name.to_owned()));
        }
    }
}

impl fmt::Display for Slowest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times: Vec<_> = self.times.iter().collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let all: Duration = times.iter().map(|(took, _)| took).sum();
        write!(f, "{} tests in {all:.0?}; longest:", times.len())?;
        times.iter().take(MOST).try_for_each(|(took, name)| write!(f, " {name} {took:.1?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_are_named() {
        let mut slowest = Slowest::new();
        let start = slowest.last;
        for (line, seconds) in [
            ("running 2 tests", 1),
            ("test drain::one ... ok", 2),
            ("test top::two ... FAILED", 5),
            ("test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured", 9),
        ] {
            slowest.line_at(line, start + Duration::from_secs(seconds));
        }
        assert_eq!(slowest.to_string(), "2 tests in 4s; longest: top::two 3.0s drain::one 1.0s");
    }
}
