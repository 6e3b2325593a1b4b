//! Runs strace on a running process, to count its system calls or make one of them fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::poll::{SOON, try_poll_until};
use crate::process::{Process, Program};
use crate::random::Random;

/// Errors to inject.
const ERRORS: [&str; 4] = ["EIO", "ENOMEM", "EPERM", "EMFILE"];
/// Calls that must not fail, since the allocator, locks or the return from a signal handler could not go on.
const NEVER: [&str; 15] = [
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "gettid",
    "madvise",
    "mprotect",
    "munmap",
    "restart_syscall",
    "rt_sigprocmask",
    "rt_sigreturn",
];

/// Whether it is installed.
pub fn is_there() -> bool {
    Command::new("strace").arg("-V").output().is_ok_and(|said| said.status.success())
}

/// A call to make fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Its name.
    pub call: String,
    /// Which call of each thread fails, from 1; only that one.
    pub when: u64,
    /// The error it returns.
    pub error: &'static str,
}

impl Failing {
    /// A random one of these calls, given how often each was made.
    ///
    /// # Errors
    /// When there are none.
    pub fn any(calls: &BTreeMap<String, u64>, random: &mut Random) -> Result<Self> {
        ensure!(!calls.is_empty(), "no system call was seen");
        let nth = random.below(calls.len() as u64) as usize;
        let (call, count) = calls.iter().nth(nth).context("a call")?;
        let error = ERRORS[random.below(ERRORS.len() as u64) as usize];
        Ok(Self { call: call.clone(), when: 1 + random.below(*count), error })
    }
}

/// strace, attached to all threads of a process; detached on `Drop`.
#[derive(Debug)]
pub struct Strace {
    process: Process,
    dir: TempDir,
}

impl Strace {
    /// Attaches strace, to log all calls or to make one of them fail.
    ///
    /// # Errors
    /// When strace is missing, or may not attach.
    pub fn attach(pid: u32, failing: Option<&Failing>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-ttt", "-s", "64", "-o"]).arg(dir.path().join("log"));
        if let Some(Failing { call, when, error }) = failing {
            let inject = format!("inject={call}:error={error}:when={when}");
            command.args(["-e", &format!("trace={call}"), "-e", &inject]);
        }
        command.args(["-p", &pid.to_string()]);
        let mut process = Program::from(command).start()?;
        try_poll_until(SOON, "strace to attach", || {
            ensure!(process.ended()?.is_none(), "strace: {}", process.stderr()?);
            Ok(process.stderr()?.contains("attached").then_some(()))
        })?;
        Ok(Self { process, dir })
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Detaches strace. Returns the calls as strace writes them, without thread and time.
    ///
    /// # Errors
    /// When it does not end.
    pub fn detach(mut self) -> Result<Vec<String>> {
        self.process.signal(Signal::INT)?;
        self.process.wait(SOON)?;
        let text = fs::read(self.log()).context("what strace saw")?;
        let text = String::from_utf8_lossy(&text);
        Ok(whole_calls(&text))
    }
}

/// The calls of a log, each in one line: strace splits a call when another thread's comes in between.
fn whole_calls(log: &str) -> Vec<String> {
    let (mut calls, mut begun) = (Vec::new(), BTreeMap::new());
    for line in log.lines() {
        // The thread, which strace pads, and the time come first.
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
        let Some((_, call)) = rest.trim_start().split_once(' ') else { continue };
        let call = call.trim();
        if let Some(start) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, start);
        } else if let Some((_, end)) =
            call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"))
        {
            calls.push(format!("{}{end}", begun.remove(thread).unwrap_or_default()));
        } else {
            calls.push(call.to_owned());
        }
    }
    // Calls that have not returned count too.
    calls.extend(begun.into_values().map(str::to_owned));
    calls
}

/// How often each call that may fail was made.
pub fn counts(calls: &[String]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for call in calls {
        if let Some((name, _)) = call.split_once('(')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !NEVER.contains(&name)
        {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_call_are_put_together() {
        let log = "12 1.5 read(3</a>,  <unfinished ...>\n  7 1.6 close(3) = 0\n\
                   12 1.7 <... read resumed>\"x\", 4) = -1 EIO (INJECTED)\n 7 1.8 ppoll( <unfinished ...>\n";
        let whole = ["close(3) = 0", "read(3</a>, \"x\", 4) = -1 EIO (INJECTED)", "ppoll("];
        assert_eq!(whole_calls(log), whole);
    }
}
