//! Processes with a deadline: started with their output in files, always reaped.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::binaries;
use crate::poll::{SOON, try_poll_until};

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to its standard output.
    pub stdout: String,
    /// Everything it wrote to its standard error.
    pub stderr: String,
}

impl Finished {
    /// The exit code as a shell gives it: 128 + N after signal N.
    pub fn code(&self) -> i32 {
        self.status.code().or(self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }
}

/// A command that is not started yet.
#[derive(Debug)]
pub struct Program(Command, Stdio);

/// `memstock` with these arguments.
///
/// # Errors
/// When it has not been built.
pub fn memstock<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Program> {
    let mut command = Command::new(binaries::memstock()?);
    // With it, tests see that an error message is one line even when a backtrace is asked for.
    command.args(args).env("RUST_BACKTRACE", "1");
    Ok(command.into())
}

impl From<Command> for Program {
    fn from(command: Command) -> Self {
        Self(command, Stdio::null())
    }
}

impl Program {
    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Sets its standard input, which is empty by default.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.1 = stdin.into();
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut self) -> Result<Process> {
        let stdout = tempfile::tempfile().context("a file for standard output")?;
        let stderr = tempfile::tempfile().context("a file for standard error")?;
        self.0.stdin(self.1).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let what = format!("{:?}", self.0);
        let child = self.0.spawn().with_context(|| format!("starting {what}"))?;
        Ok(Process { child, what, stdout, stderr })
    }

    /// Starts it and waits until it ends.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time (it is then killed).
    pub fn finish(self, deadline: Duration) -> Result<Finished> {
        self.start()?.finish(deadline)
    }
}

/// A process that is running or not yet reaped. Killed on `Drop`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
    stdout: File,
    stderr: File,
}

impl Process {
    /// Its id, which is not reused until it is reaped.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, which has no effect if it has ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("{signal:?} to {}", self.what))
    }

    /// What it has written to its standard output so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stdout(&self) -> Result<String> {
        contents(&self.stdout)
    }

    /// What it has written to its standard error so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn stderr(&self) -> Result<String> {
        contents(&self.stderr)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.what))
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub fn wait(&mut self, deadline: Duration) -> Result<Finished> {
        let what = format!("the end of {}", self.what);
        let status = try_poll_until(deadline, &what, || self.ended()).with_context(|| {
            format!("its standard error: {}", self.stderr().unwrap_or_default())
        })?;
        Ok(Finished { status, stdout: self.stdout()?, stderr: self.stderr()? })
    }

    /// Waits until it ends; kills it if it does not in time.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub fn finish(mut self, deadline: Duration) -> Result<Finished> {
        self.wait(deadline)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let _ = self.child.kill();
        if let Err(error) = try_poll_until(SOON, "the end of a killed process", || self.ended()) {
            eprintln!("{}: {error:#}", self.what);
        }
    }
}

/// Reads a file from its start without moving the offset, which the writing process shares.
fn contents(file: &File) -> Result<String> {
    let length = usize::try_from(file.metadata()?.len())?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).context("the output of a process")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
