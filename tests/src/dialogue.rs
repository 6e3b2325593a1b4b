//! A workload process that takes commands: one line on its standard input, one line back.
//!
//! Owns the process and both pipes; knows no particular command.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::poll::{SOON, try_poll_until};

/// Reads a program and the libraries it shares with this one into the page cache. Parts that are not cached
/// would be charged to the cgroup the program starts in, and stay there when it has ended. (Some hosts drop
/// what was not used for a minute.)
fn warm(command: &Command) -> Result<()> {
    let maps = fs::read_to_string("/proc/self/maps").context("/proc/self/maps")?;
    let mapped = maps.lines().filter_map(|line| line.find('/').map(|path| &line[path..]));
    let mut files: BTreeSet<&str> = mapped.filter(|path| path.contains(".so")).collect();
    files.extend(command.get_program().to_str());
    for path in files {
        // A library that was replaced meanwhile no longer has that name.
        if let Ok(mut file) = File::open(path) {
            io::copy(&mut file, &mut io::sink()).with_context(|| path.to_owned())?;
        }
    }
    Ok(())
}

/// A process that answers commands. Killed and reaped on `Drop`.
#[derive(Debug)]
pub struct WorkloadProcess {
    child: Child,
    commands: ChildStdin,
    replies: ChildStdout,
}

impl WorkloadProcess {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        warm(&command)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("starting memstock-workload")?;
        let (Some(commands), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("both ends were asked to be pipes");
        };
        Ok(Self { child, commands, replies })
    }

    /// Its process id, which is not reused until it is reaped.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends one command line and waits for one reply line, whatever it says.
    ///
    /// # Errors
    /// When it does not reply in time.
    pub fn ask(&mut self, command: &str, deadline: Duration) -> Result<String> {
        self.tell(command)?;
        self.hear(deadline).with_context(|| format!("the workload's reply to {command}"))
    }

    /// Sends one command line.
    ///
    /// # Errors
    /// When it has ended.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        self.commands
            .write_all(format!("{command}\n").as_bytes())
            .with_context(|| format!("telling the workload to {command}"))
    }

    /// Waits for one line.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn hear(&mut self, deadline: Duration) -> Result<String> {
        let end = Instant::now() + deadline;
        let mut line = Vec::new();
        loop {
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
            let mut fds = [PollFd::new(&self.replies, PollFlags::IN)];
            ensure!(poll(&mut fds, Some(&left))? > 0, "none within {deadline:?}");
            let mut bytes = [0; 128];
            let count = self.replies.read(&mut bytes)?;
            ensure!(count > 0, "it has ended");
            line.extend_from_slice(&bytes[..count]);
            if line.ends_with(b"\n") {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }

    /// Kills it with SIGKILL. Does nothing if it has already ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing a workload")
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel refuses to say.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("the state of a workload")
    }

    /// Waits until it ends, and reaps it.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let Self { child, .. } = self;
        try_poll_until(SOON, "the end of a workload", || Ok(child.try_wait()?))
    }
}

impl Drop for WorkloadProcess {
    fn drop(&mut self) {
        if let Err(error) = self.kill().and_then(|()| self.wait()) {
            eprintln!("{error:#}");
        }
    }
}
