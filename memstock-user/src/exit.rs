//! Exit codes, the errors that carry one, and how errors and log records are printed on stderr. Each module classifies
//! its own failures.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | success |
//! | 2 | wrong usage (from clap) |
//! | 10, 11 | verdicts of the verbs that judge limits: slow, out of memory |
//! | 120 | no permission |
//! | 121 | the host lacks something |
//! | 122 | bad cgroup |
//! | 123 | an engine is already running |
//! | 124 | no engine is running |
//! | 125 | any other failure |
//! | 126 | COMMAND cannot be executed |
//! | 127 | COMMAND not found |
//! | 128+N | COMMAND was killed by signal N |
//!
//! Otherwise the code is COMMAND's own. memstock's failures start at 120, because commands use small numbers; 125 to
//! 128+N follow `env`, `nice` and shells.

use std::fmt::Write as _;
use std::io::Write as _;

/// Everything went well.
pub const SUCCESS: u8 = 0;
/// Wrong usage; the code that clap uses.
pub const USAGE: u8 = 2;
/// Verdict: slow at one of the given limits.
pub const SLOW: u8 = 10;
/// Verdict: out of memory at one of the given limits.
pub const OOM: u8 = 11;
/// COMMAND was killed by signal N: the code is this plus N.
pub const SIGNALED: u8 = 128;

/// Why memstock itself failed; each kind has its exit code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, strum::VariantArray)]
pub enum Failure {
    /// Flags that do not make sense together.
    Usage,
    /// Not root, or capabilities are missing.
    Permission,
    /// The host lacks something: a cgroup v2 mount, bpffs, tracepoints, BPF.
    Host,
    /// No such cgroup, a v1 path, the root, one that exists already.
    Cgroup,
    /// An engine is already running.
    Running,
    /// No engine is running.
    NotRunning,
    /// Anything else.
    Other,
    /// COMMAND exists but cannot be executed.
    CannotExecute,
    /// COMMAND does not exist.
    NotFound,
}

impl Failure {
    /// Every kind, for documentation and tests.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The exit code of this kind.
    pub const fn code(self) -> u8 {
        match self {
            Self::Usage => USAGE,
            Self::Permission => 120,
            Self::Host => 121,
            Self::Cgroup => 122,
            Self::Running => 123,
            Self::NotRunning => 124,
            Self::Other => 125,
            Self::CannotExecute => 126,
            Self::NotFound => 127,
        }
    }

    /// An error of this kind, without a cause.
    pub fn error(self, message: impl Into<String>) -> anyhow::Error {
        ExitError { kind: self, message: message.into() }.into()
    }
}

/// An error message with its exit code: the root of an error chain, or a context in it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// Decides the exit code.
    pub kind: Failure,
    /// One line: what is wrong and what to do.
    pub message: String,
}

/// Several errors at once, printed one per line.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", .lines.join("; "))]
pub struct ExitErrors {
    /// Decides the exit code.
    pub kind: Failure,
    /// For each error, one line: what is wrong and what to do.
    pub lines: Vec<String>,
}

/// Adds a kind and a message to an error, like anyhow's `with_context`.
pub trait Classify<T> {
    /// Wraps the error, which stays in the chain as the cause.
    fn classify(self, kind: Failure, message: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Classify<T> for Result<T, E> {
    fn classify(self, kind: Failure, message: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|cause| cause.into().context(ExitError { kind, message: message() }))
    }
}

/// The exit code of a failure: that of the outermost [`ExitError`] in its chain, else [`Failure::Other`].
pub fn exit_code(error: &anyhow::Error) -> u8 {
    // `chain()` hides the type of an anyhow context, so only `downcast_ref` finds that; conversely, only `chain()`
    // finds one that is the source of another error.
    let several = error.downcast_ref::<ExitErrors>().map(|errors| errors.kind);
    let one = error
        .downcast_ref::<ExitError>()
        .or_else(|| error.chain().find_map(|cause| cause.downcast_ref::<ExitError>()))
        .map(|found| found.kind);
    several.or(one).unwrap_or(Failure::Other).code()
}

/// Prints the failure on stderr, one line per error.
pub fn report(error: &anyhow::Error) {
    // If stderr is closed, the exit code still reports the failure.
    let _ = std::io::stderr().write_all(lines(error).as_bytes());
}

/// Prints clap's output: help unchanged, a usage error as one line. Returns the exit code.
pub fn usage(error: &clap::Error) -> u8 {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as NoVerb;
    if error.use_stderr() && error.kind() != NoVerb {
        let text = error.render().to_string();
        let mistake = text.strip_prefix("error: ").unwrap_or(&text);
        let mistake: Vec<_> =
            mistake.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let line = format!("memstock: {} (see --help)\n", printable(&mistake.join(" ")));
        // As in `report`.
        let _ = std::io::stderr().write_all(line.as_bytes());
    } else {
        match error.print() {
            // EPIPE: the reader has seen enough; not an error.
            Err(failed) if failed.kind() != std::io::ErrorKind::BrokenPipe => {
                report(&anyhow::Error::new(failed).context("cannot print the help"));
                return Failure::Other.code();
            }
            _ => {}
        }
    }
    // clap's codes: 0 for requested help or version, 2 for usage errors.
    error.exit_code().to_le_bytes()[0]
}

fn lines(error: &anyhow::Error) -> String {
    // One write(2) of whole lines, so that the output of several processes does not mix.
    let line = |text: &str| format!("memstock: {}\n", printable(text));
    match error.downcast_ref::<ExitErrors>() {
        Some(errors) => errors.lines.iter().map(|text| line(text)).collect(),
        None => line(&format!("{error:#}")),
    }
}

/// Formats a log record for a terminal. Continuation lines are indented, so that a line break in a name cannot forge a
/// record.
pub fn log_lines(record: &log::Record<'_>) -> String {
    let text = record.args().to_string();
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    format!("[{:<5} {}] {}\n", record.level(), record.target(), lines.join("\n    "))
}

/// Escapes all of `text` that could move the cursor, colour the terminal or reorder the line.
///
/// A backslash stays as it is: systemd's cgroup names are full of `\x2d`, and people copy them.
pub fn printable(text: &str) -> String {
    if is_plain(text.as_bytes()) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut carries_marks = false;
    for c in text.chars() {
        let is_mark = is_combining(c);
        // Writing to a String cannot fail.
        let _ = match c {
            c if c.is_ascii_control() => write!(out, "\\x{:02x}", u32::from(c)),
            c if c.is_ascii() => out.write_char(c),
            // An accent on a letter is text; on a slash or a quotation mark it would disguise it.
            c if is_mark && carries_marks => out.write_char(c),
            // std escapes what is not printable: controls, separators, invisible and directional marks, unassigned code
            // points.
            c => write!(out, "{}", c.escape_debug()),
        };
        carries_marks = c.is_alphanumeric() || (is_mark && carries_marks);
    }
    out
}

/// Whether it is ASCII without control characters, which [`printable`] leaves as it is.
pub fn is_plain(text: &[u8]) -> bool {
    // To the end in any case, so that it looks at many bytes at a time.
    text.iter().fold(true, |is_plain, byte| is_plain & matches!(byte, b' '..=b'~'))
}

/// Whether `c` is printable only after another character.
fn is_combining(c: char) -> bool {
    let mut text = [b'a'; 5];
    let len = 1 + c.encode_utf8(&mut text[1..]).len();
    let alone = c.escape_debug().len() > 1;
    let after_one = || std::str::from_utf8(&text[..len]).map(|text| text.escape_debug().count());
    !c.is_ascii() && alone && after_one() == Ok(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn codes_are_as_documented() {
        let codes: Vec<u8> = Failure::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes, [2, 120, 121, 122, 123, 124, 125, 126, 127]);
    }

    #[test]
    fn the_fault_is_found_wherever_it_is() {
        let plain = anyhow::anyhow!("no kind");
        assert_eq!(exit_code(&plain), 125);

        let root = Failure::Cgroup.error("no such cgroup").context("a").context("b");
        assert_eq!(exit_code(&root), 122);

        let context = Err::<(), _>(std::io::Error::from_raw_os_error(libc::EPERM))
            .classify(Failure::Permission, || "run it with sudo".into())
            .context("loading")
            .unwrap_err();
        assert_eq!(exit_code(&context), 120);
        assert!(lines(&context).starts_with("memstock: loading: run it with sudo: Operation not"));

        let outermost =
            Err::<(), _>(context).classify(Failure::Host, || "no bpffs".into()).unwrap_err();
        assert_eq!(exit_code(&outermost), 121);

        #[derive(Debug, thiserror::Error)]
        #[error("wrapped")]
        struct Wrapper(#[source] ExitError);
        let source = Wrapper(ExitError { kind: Failure::Running, message: "pid 3".into() });
        assert_eq!(exit_code(&source.into()), 123);
    }

    #[test]
    fn several_have_a_line_each() {
        let errors = ExitErrors { kind: Failure::Usage, lines: vec!["a\nb".into(), "c".into()] };
        let error = anyhow::Error::from(errors);
        assert_eq!(lines(&error), "memstock: a\\x0ab\nmemstock: c\n");
        assert_eq!(exit_code(&error), 2);
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        for (text, shown) in [
            ("a b=\"c\"'\\x2d'", "a b=\"c\"'\\x2d'"),
            ("\0\t\u{7f}\u{85}", "\\x00\\x09\\x7f\\u{85}"),
            // Zero width, soft hyphen, byte order mark, word joiner.
            (
                "\u{200b}\u{200d}\u{ad}\u{feff}\u{2060}",
                "\\u{200b}\\u{200d}\\u{ad}\\u{feff}\\u{2060}",
            ),
            // Directional marks, embeddings, overrides and isolates.
            ("\u{61c}\u{200f}\u{202e}\u{2067}", "\\u{61c}\\u{200f}\\u{202e}\\u{2067}"),
            // Separators, and spaces other than U+0020.
            ("\u{2028}\u{2029}\u{a0}\u{3000}", "\\u{2028}\\u{2029}\\u{a0}\\u{3000}"),
            // Tags, private use, unassigned.
            ("\u{e0041}\u{e000}\u{378}", "\\u{e0041}\\u{e000}\\u{378}"),
            // Combining marks are text only after a letter.
            ("e\u{301}\u{323}", "e\u{301}\u{323}"),
            ("/\u{301}\u{323}\u{20dd}", "/\\u{301}\\u{323}\\u{20dd}"),
            ("\u{301}", "\\u{301}"),
            // Right-to-left, wide and supplementary-plane characters are text.
            ("שלום 漢字 🐧 é", "שלום 漢字 🐧 é"),
        ] {
            assert_eq!(printable(text), shown, "{text:?}");
        }
    }

    #[test]
    fn a_record_of_the_log_is_harmless() {
        let mut record = log::Record::builder();
        record.level(log::Level::Warn).target("memstock::enforce");
        let lines = log_lines(&record.args(format_args!("freeze \x1b[31m\r\n[WARN")).build());
        assert_eq!(lines, "[WARN  memstock::enforce] freeze \\x1b[31m\\x0d\n    [WARN\n");
    }

    #[test]
    fn a_report_is_one_harmless_line() {
        let error = anyhow::anyhow!("a\nb\r\x1b[31m\u{9b}\u{202e}é\\x2d").context("x\ty");
        assert_eq!(
            lines(&error),
            "memstock: x\\x09y: a\\x0ab\\x0d\\x1b[31m\\u{9b}\\u{202e}é\\x2d\n"
        );
    }
}
