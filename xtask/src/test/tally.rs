//! Adds up the results that libtest prints, and the tests that were skipped. Only parses text.

use std::collections::BTreeSet;
use std::fmt;

/// The end of the line of a test that was skipped because it takes long.
const LONG: &str = ": long";

/// Results so far. Its `Display` ends with the closing line.
#[derive(Default)]
pub struct Tally {
    passed: usize,
    ignored: usize,
    failed: usize,
    failures: Vec<String>,
    skips: Vec<String>,
    /// The failure whose test's output is being read, and whether the next line of it is a message.
    told: Option<(usize, bool)>,
}

impl Tally {
    /// Takes a line of a test binary's output.
    pub fn line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            self.passed += count(rest, "passed");
            self.failed += count(rest, "failed");
            self.ignored += count(rest, "ignored");
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            if outcome == "FAILED" {
                self.failures.push(name.to_owned());
            } else if let Some(reason) = outcome.strip_prefix("ignored") {
                let reason = reason.strip_prefix(", ").unwrap_or("ignored by default");
                self.skips.push(format!("{name}: {reason}"));
            }
        } else if line.starts_with("running ") {
            self.told = None;
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            let failure = self.failures.iter().rposition(|failure| failure == name);
            self.told = failure.map(|failure| (failure, false));
        } else {
            self.output(line);
        }
    }

    /// Takes a line of what a failed test wrote, which libtest prints at the end. Its error or panic is put behind its
    /// name, with the first cause.
    fn output(&mut self, line: &str) {
        let Some((failure, is_message)) = self.told else { return };
        // Several causes are numbered.
        let cause = || line.trim().trim_start_matches("0: ");
        let message = if is_message { Some(cause()) } else { line.strip_prefix("Error: ") };
        if let Some(message) = message {
            self.failures[failure].push_str(": ");
            self.failures[failure].push_str(message);
        }
        let is_next = line == "Caused by:" || line.contains(" panicked at ");
        self.told = (!is_message).then_some((failure, is_next));
    }

    /// Takes the lines `name: reason` of skipped tests, which libtest counted as passed. A test may have several.
    pub fn skips(&mut self, text: &str) {
        let name = |line: &str| line.split_once(": ").map_or(line, |(name, _)| name).to_owned();
        let mut names: BTreeSet<_> = self.skips.iter().map(|line| name(line)).collect();
        let before = names.len();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if !self.skips.iter().any(|known| known == line) {
                names.insert(name(line));
                self.skips.push(line.to_owned());
            }
        }
        self.passed = self.passed.saturating_sub(names.len() - before);
        self.ignored += names.len() - before;
    }

    /// Counts the outcome of something that libtest did not run.
    pub fn outcome(&mut self, what: &str, outcome: anyhow::Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => self.broken(what, &error),
        }
    }

    /// Counts a failure that is not a test's.
    pub fn note(&mut self, what: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
    }

    /// Counts as a failure that a group of tests could not be built, or died.
    pub fn broken(&mut self, group: &str, error: &anyhow::Error) {
        self.note(&format!("{group}: {error:#}"));
    }

    /// Adds the results of another tally; `place` is put before the names of its tests.
    pub fn add(&mut self, place: &str, other: Self) {
        let Self { passed, ignored, failed, failures, skips, told: _ } = other;
        self.passed += passed;
        self.ignored += ignored;
        self.failed += failed;
        self.failures.extend(failures.iter().map(|failure| format!("{place}: {failure}")));
        self.skips.extend(skips.iter().map(|skip| format!("{place}: {skip}")));
    }

    /// The closing line.
    pub fn closing(&self) -> String {
        let (passed, failed, skipped) = self.counts();
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }

    /// Passed, failed and skipped.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.passed, self.failed, self.ignored)
    }

    /// What failed.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Failures so far.
    pub fn failed(&self) -> usize {
        self.failed
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failures, skips, .. } = self;
        writeln!(f)?;
        let (long, others): (Vec<_>, Vec<_>) = skips.iter().partition(|skip| skip.ends_with(LONG));
        for skip in others {
            writeln!(f, "skipped  {skip}")?;
        }
        if !long.is_empty() {
            writeln!(f, "skipped  {} that take long: \"cargo xtask test --long\"", long.len())?;
        }
        for failure in failures {
            writeln!(f, "failed   {failure}")?;
        }
        writeln!(f, "{}", self.closing())
    }
}

/// The number before `what` in `ok. 3 passed; 0 failed; …`.
fn count(summary: &str, what: &str) -> usize {
    let mut words = summary.split([' ', ';']).filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        if words.peek() == Some(&what) {
            return word.parse().unwrap_or(0);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 4 tests
test charge::tests::rolls_back ... ok
test drain ... ignored, needs two CPUs
test plain ... ignored
test stock::tests::never_negative ... FAILED
test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.01s
running 1 test
test memstock-common/src/lib.rs - stock (line 12) ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
";

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.line(line));
        tally
    }

    fn closing(tally: &Tally) -> String {
        tally.to_string().lines().last().unwrap().to_owned()
    }

    #[test]
    fn results_of_another_place_bear_its_name() {
        let mut all = tally(OUTPUT);
        all.add("a guest", tally(OUTPUT));
        assert_eq!(closing(&all), "4 passed, 2 failed, 4 skipped");
        let text = all.to_string();
        assert!(text.contains("failed   a guest: stock::tests::never_negative\n"), "{text}");
    }

    #[test]
    fn binaries_add_up() {
        let tally = tally(OUTPUT);
        assert_eq!(closing(&tally), "2 passed, 1 failed, 2 skipped");
        let text = tally.to_string();
        assert!(text.contains("skipped  drain: needs two CPUs\n"), "{text}");
        assert!(text.contains("failed   stock::tests::never_negative\n"), "{text}");
    }

    #[test]
    fn a_failure_has_its_reason() {
        let output = "test a::b ... FAILED\ntest c ... FAILED\n\nfailures:\n\n---- a::b stdout ----\n\
            Error: held: 3 pages\n\nCaused by:\n    0: timed out\n    1: no answer\n\nStack backtrace:\n   0: x\n\n\
            ---- c stdout ----\n\nthread 'c' (7) panicked at x.rs:1:2:\nno page\nnote: a note\n\n\
            failures:\n    a::b\n    c\n";
        let text = tally(output).to_string();
        assert!(text.contains("failed   a::b: held: 3 pages: timed out\n"), "{text}");
        assert!(text.contains("failed   c: no page\n"), "{text}");
    }

    #[test]
    fn a_live_test_that_skipped_did_not_pass() {
        let mut tally = tally(OUTPUT);
        tally.skips("huge_pages: no huge pages here\nhuge_pages: no huge pages here\n\n");
        assert_eq!(closing(&tally), "1 passed, 1 failed, 3 skipped");
        // Another part of the same test.
        tally.skips("huge_pages: shmem: no huge pages there\n");
        assert_eq!(closing(&tally), "1 passed, 1 failed, 3 skipped");
    }

    #[test]
    fn those_that_take_long_are_one_line() {
        let output = "test churn::a ... ignored, long\ntest churn::b ... ignored, long\n\
            test plain ... ignored, no long word\ntest result: ok. 0 passed; 0 failed; 3 ignored; ";
        let text = tally(output).to_string();
        let expected = "\nskipped  plain: no long word\nskipped  2 that take long: \
            \"cargo xtask test --long\"\n0 passed, 0 failed, 3 skipped\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_no_test_counts_as_one() {
        let mut tally = tally(OUTPUT);
        tally.outcome("bench page", Ok(()));
        tally.outcome("bench limit", Err(anyhow::anyhow!("no such cgroup")));
        assert_eq!(closing(&tally), "3 passed, 2 failed, 2 skipped");
        assert!(tally.to_string().contains("failed   bench limit: no such cgroup"));
    }

    #[test]
    fn a_broken_group_fails() {
        let mut tally = tally("");
        tally.broken("live", &anyhow::anyhow!("`cargo test` failed"));
        assert_eq!(closing(&tally), "0 passed, 1 failed, 0 skipped");
        assert!(tally.to_string().contains("failed   live: `cargo test` failed"));
    }
}
