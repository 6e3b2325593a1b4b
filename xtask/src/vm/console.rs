//! Parses what a guest prints on its second serial line: the output of the tests, and lines of its init.
//!
//! The kernel's log is on the first serial line, so that neither breaks the other's lines.

use super::disk::BENCH;
use crate::test::tally::Tally;

/// The beginning of init's lines.
pub const MARK: &str = "memstock-vm: ";

/// The state of parsing.
#[derive(Debug, Default)]
pub struct Console {
    file: Option<String>,
    said: Said,
    /// The running benchmark or module of tests, and the number of failures before it.
    binary: Option<(String, usize)>,
}

/// What the guest reported, complete when it is off.
#[derive(Debug, Default)]
pub struct Said {
    /// Whether init reached its end.
    pub verdict: bool,
    /// Lines `name: reason` of skipped tests.
    pub skips: String,
    /// The verifier's counts, with `--bless`.
    pub budget: Option<String>,
}

impl Console {
    /// Takes a line, and prints it if it is of the tests.
    pub fn line(&mut self, line: &str, tally: &mut Tally) {
        let line = line.trim_end_matches('\r');
        // The mark may come after the unfinished line of a killed test.
        if let Some((_, said)) = line.split_once(MARK) {
            self.init(said, tally);
            return;
        }
        let into = match self.file.as_deref() {
            Some("skips") => &mut self.said.skips,
            Some("budget") => self.said.budget.get_or_insert_default(),
            _ => {
                println!("{line}");
                tally.line(line);
                return;
            }
        };
        into.push_str(line);
        into.push('\n');
    }

    fn init(&mut self, said: &str, tally: &mut Tally) {
        let (verb, rest) = said.split_once(' ').unwrap_or((said, ""));
        match verb {
            "run" => {
                println!("\n     Running {rest}");
                self.binary = Some((rest.to_owned(), tally.failed()));
            }
            "ran" => {
                if let Some((name, before)) = self.binary.take() {
                    if rest != "0" && tally.failed() == before {
                        tally.note(&format!("{name}: it ended with status {rest}"));
                    } else if rest == "0" && name.starts_with(BENCH) {
                        tally.outcome(&name, Ok(()));
                    }
                }
            }
            "file" => self.file = Some(rest.to_owned()),
            "end" => self.file = None,
            "done" => self.said.verdict = true,
            _ => println!("{said}"),
        }
    }

    /// Ends the parsing when the guest is off.
    pub fn end(mut self, tally: &mut Tally) -> Said {
        if let Some((name, _)) = self.binary.take() {
            tally.note(&format!("{name}: it did not end"));
        }
        self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(text: &str) -> (Said, Tally) {
        let (mut console, mut tally) = (Console::default(), Tally::default());
        text.lines().for_each(|line| console.line(line, &mut tally));
        (console.end(&mut tally), tally)
    }

    #[test]
    fn results_and_files_come_out() {
        let (said, tally) = hear(
            "memstock-vm: run live_a\r\n\
             test it ... ok\r\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\r\n\
             memstock-vm: ran 0\r\n\
             memstock-vm: run bench_page\r\nmemstock-vm: ran 0\r\n\
             memstock-vm: file skips\r\nit: no swap\r\nmemstock-vm: end\r\n\
             memstock-vm: done\r\n",
        );
        assert!(said.verdict && said.budget.is_none());
        assert_eq!(said.skips, "it: no swap\n");
        assert_eq!(tally.closing(), "3 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn a_binary_that_dies_is_a_failure() {
        let (said, tally) = hear(
            "memstock-vm: run live_a\ntest it ... memstock-vm: ran 137\nmemstock-vm: run live_b\n",
        );
        assert!(!said.verdict);
        let text = tally.to_string();
        assert!(text.contains("live_a: it ended with status 137"), "{text}");
        assert!(text.contains("live_b: it did not end"), "{text}");
    }
}
