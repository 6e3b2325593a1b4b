//! Which tests took longest, of those that run one at a time: a line of libtest comes when its test has ended.

use std::fmt;
use std::time::{Duration, Instant};

/// Tests that are named.
const MOST: usize = 10;

/// Times between the lines of tests.
pub struct Slowest {
    last: Instant,
    times: Vec<(Duration, String)>,
}

impl Slowest {
    /// From now on.
    pub fn new() -> Self {
        Self { last: Instant::now(), times: Vec::new() }
    }

    /// Takes in one line, that has just come.
    pub fn line(&mut self, line: &str) {
        let now = Instant::now();
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
        slowest.line("running 2 tests");
        slowest.line("test drain::one ... ok");
        std::thread::sleep(Duration::from_millis(20));
        slowest.line("test top::two ... FAILED");
        slowest.line("test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured");
        let said = slowest.to_string();
        assert!(said.starts_with("2 tests in ") && said.contains("longest: top::two "), "{said}");
    }
}
