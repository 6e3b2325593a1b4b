//! Owns the exit codes that memstock documents, the error that carries one, and the one line on
//! stderr that a failure gets. Must not decide what failed: each module says that itself.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | success |
//! | 2 | wrong usage (from clap) |
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
//! Otherwise the code is COMMAND's own. The codes from 120 on leave the small numbers, which commands
//! use, to COMMAND; 125 to 128+N are what `env`, `nice` and shells do.

use std::fmt::Write as _;
use std::io::Write as _;

/// Everything went well.
pub const SUCCESS: u8 = 0;
/// Wrong usage; clap prints and exits with it.
pub const USAGE: u8 = 2;
/// COMMAND was killed by signal N: the code is this plus N.
pub const SIGNALED: u8 = 128;

/// Why memstock itself failed; each kind has its exit code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
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
    /// COMMAND is there and cannot be executed.
    CannotExecute,
    /// COMMAND is not there.
    NotFound,
}

impl Failure {
    /// Every kind, for documentation and tests.
    pub const ALL: [Self; 9] = [
        Self::Usage,
        Self::Permission,
        Self::Host,
        Self::Cgroup,
        Self::Running,
        Self::NotRunning,
        Self::Other,
        Self::CannotExecute,
        Self::NotFound,
    ];

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

    /// An error of this kind with no cause below it.
    pub fn error(self, message: impl Into<String>) -> anyhow::Error {
        Fault { kind: self, message: message.into() }.into()
    }
}

/// What went wrong and with which exit code: the root of an error chain, or a context in it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Decides the exit code.
    pub kind: Failure,
    /// One line: what is wrong and what to do.
    pub message: String,
}

/// Puts a kind and a message on top of a failed result, like anyhow's `with_context`.
pub trait Classify<T> {
    /// The cause stays in the chain below the message.
    fn classify(self, kind: Failure, message: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Classify<T> for Result<T, E> {
    fn classify(self, kind: Failure, message: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|cause| cause.into().context(Fault { kind, message: message() }))
    }
}

/// The exit code of a failure: that of the outermost [`Fault`] in its chain, else [`Failure::Other`].
pub fn exit_code(error: &anyhow::Error) -> u8 {
    // anyhow hides a context's own type from `chain()` and only its own downcast finds it; a fault
    // that is the source of some other error is found by the chain alone.
    error
        .downcast_ref::<Fault>()
        .or_else(|| error.chain().find_map(|cause| cause.downcast_ref::<Fault>()))
        .map_or(Failure::Other, |fault| fault.kind)
        .code()
}

/// Prints the failure as one line on stderr.
pub fn report(error: &anyhow::Error) {
    // There is nobody left to tell when stderr is closed; the exit code still says it.
    let _ = std::io::stderr().write_all(line(error).as_bytes());
}

/// Prints what clap has to say: help as it is, a mistake as one line. Returns the exit code.
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
        // A closed pipe has had what it wanted.
        let _ = error.print();
    }
    // clap's codes: 0 for help and version that were asked for, 2 for mistakes.
    error.exit_code().to_le_bytes()[0]
}

fn line(error: &anyhow::Error) -> String {
    // One write(2) of the whole line, so that lines of several processes do not mix.
    format!("memstock: {}\n", printable(&format!("{error:#}")))
}

/// `text` with all that could move the cursor, colour the terminal or reorder the line escaped.
///
/// A backslash stays as it is: systemd's cgroup names are full of `\x2d`, and people copy them.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            c if c.is_ascii_control() => write!(out, "\\x{:02x}", u32::from(c)),
            // C1 controls, line separators, and what changes the direction of the text.
            c if c.is_control() => write!(out, "{}", c.escape_unicode()),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(out, "{}", c.escape_unicode())
            }
            c => out.write_char(c),
        };
    }
    out
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
        assert!(line(&context).starts_with("memstock: loading: run it with sudo: Operation not"));

        let outermost =
            Err::<(), _>(context).classify(Failure::Host, || "no bpffs".into()).unwrap_err();
        assert_eq!(exit_code(&outermost), 121);

        #[derive(Debug, thiserror::Error)]
        #[error("wrapped")]
        struct Wrapper(#[source] Fault);
        let source = Wrapper(Fault { kind: Failure::Running, message: "pid 3".into() });
        assert_eq!(exit_code(&source.into()), 123);
    }

    #[test]
    fn a_report_is_one_harmless_line() {
        let error = anyhow::anyhow!("a\nb\r\x1b[31m\u{9b}\u{202e}é\\x2d").context("x\ty");
        assert_eq!(
            line(&error),
            "memstock: x\\x09y: a\\x0ab\\x0d\\x1b[31m\\u{9b}\\u{202e}é\\x2d\n"
        );
    }
}
