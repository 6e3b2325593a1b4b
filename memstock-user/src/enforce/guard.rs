//! Ends freezes even if this process does not. A second process, the *guard*, is told of each freeze before it happens.
//! It thaws what is left when the daemon is gone, and what has been held for longer than [`MOST`].
//!
//! The guard is `memstock guard`, with one end of a pipe as its standard input; the kernel closes the other end however
//! the daemon dies. Each message is one line, `+DIR` or `-DIR`, in one write of at most `PIPE_BUF` bytes. Such writes
//! are atomic, so the daemon's threads need no lock.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

use super::freeze::{let_go, thaw};

/// How long a cgroup may be held at once. It bounds a hang of the daemon, and several victims that die slowly: the
/// tasks run again while the rest is killed.
pub const MOST: Duration = Duration::from_secs(2);

/// The daemon's side.
#[derive(Debug)]
pub struct Guard {
    process: Child,
    pipe: Option<OwnedFd>,
}

impl Guard {
    /// Starts the guard, running the program `memstock`.
    ///
    /// # Errors
    /// No process can be started.
    pub fn start(memstock: &Path) -> Result<Self> {
        let mut command = Command::new(memstock);
        command.arg("guard").stdin(Stdio::piped()).stdout(Stdio::null());
        // So that signals to the terminal's foreground group do not reach it.
        command.process_group(0);
        let mut process = command.spawn().context("cannot start the guard")?;
        let pipe = process.stdin.take().map(OwnedFd::from);
        Ok(Self { process, pipe })
    }

    /// Whether it is still running.
    pub fn is_alive(&self) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let mut fds = [PollFd::new(pipe, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A pipe without a reader polls as an error.
        poll(&mut fds, Some(&now)).is_ok_and(|_| !fds[0].revents().contains(PollFlags::ERR))
    }

    /// Kills the guard without letting it thaw anything. For tests.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
            .context("cannot kill the guard")
    }

    /// Announces that the cgroup with this directory is about to be frozen.
    ///
    /// # Errors
    /// The guard is gone: then nothing may be frozen.
    pub fn holds(&self, dir: &Path) -> Result<()> {
        self.send(b'+', dir)
    }

    /// Announces that it is no longer frozen.
    pub fn released(&self, dir: &Path) {
        // If the guard is gone there is nobody to tell.
        let _ = self.send(b'-', dir);
    }

    fn send(&self, sign: u8, dir: &Path) -> Result<()> {
        let pipe = self.pipe.as_ref().context("the guard has ended")?;
        let dir = dir.as_os_str().as_bytes();
        let line = [&[sign], dir, b"\n"].concat();
        ensure!(
            line.len() <= libc::PIPE_BUF && !dir.contains(&b'\n'),
            "the path does not fit in one line"
        );
        rustix::io::write(pipe, &line).context("the guard is gone")?;
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.pipe = None;
        let _ = self.process.wait();
    }
}

/// The path of this program, even if its file was replaced since it was started.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn this_program() -> Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(if path.exists() { path } else { "/proc/self/exe".into() })
}

/// The guard's main loop: reads `input` until it ends.
///
/// # Errors
/// It cannot be read.
pub fn guard(input: BorrowedFd<'_>) -> Result<()> {
    let mut held = Held::default();
    let mut buffer = [0; libc::PIPE_BUF];
    loop {
        let mut fds = [PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN)];
        let wait = held.next(Instant::now()).and_then(|wait| Timespec::try_from(wait).ok());
        let len = match poll(&mut fds, wait.as_ref()).and_then(|ready| match ready {
            0 => Ok(None),
            _ => rustix::io::read(input, &mut buffer).map(Some),
        }) {
            Err(Errno::INTR) => continue,
            len => len.context("cannot read from the daemon")?,
        };
        match len {
            Some(0) => break,
            Some(len) => held.update(&buffer[..len], Instant::now()),
            None => {}
        }
        for dir in held.overdue(Instant::now()) {
            if let Err(error) = thaw(&dir) {
                log::warn!("{error:#}");
                held.until.insert(dir, Instant::now() + MOST);
            }
        }
    }
    // Nobody else is left to remove the marks.
    for dir in held.all() {
        if let Err(error) = let_go(&dir) {
            log::warn!("{error:#}");
        }
    }
    Ok(())
}

/// The cgroups that the daemon holds, as far as the guard was told.
#[derive(Debug, Default)]
struct Held {
    /// The deadline of each, by directory.
    until: BTreeMap<PathBuf, Instant>,
    /// The beginning of an incomplete line.
    rest: Vec<u8>,
}

impl Held {
    fn update(&mut self, bytes: &[u8], now: Instant) {
        self.rest.extend(bytes);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<_> = self.rest.drain(..=end).collect();
            let Some((sign, dir)) = line[..end].split_first() else { continue };
            let dir = PathBuf::from(OsString::from_vec(dir.to_vec()));
            match sign {
                b'+' => drop(self.until.insert(dir, now + MOST)),
                _ => drop(self.until.remove(&dir)),
            }
        }
    }

    /// Time until the next deadline; `None` while nothing is held.
    fn next(&self, now: Instant) -> Option<Duration> {
        self.until.values().min().map(|until| until.saturating_duration_since(now))
    }

    /// Removes and returns those past their deadline.
    fn overdue(&mut self, now: Instant) -> Vec<PathBuf> {
        self.until.extract_if(.., |_, until| *until <= now).map(|(dir, _)| dir).collect()
    }

    fn all(self) -> Vec<PathBuf> {
        self.until.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_released_is_left() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.update(b"+/a b\n+/c\n-/a b\n+/d\n-/c\n+/to", now);
        assert_eq!(held.next(now), Some(MOST));
        held.update(b"rn\n", now + MOST / 2);
        assert_eq!(held.overdue(now + MOST), [PathBuf::from("/d")]);
        assert_eq!(held.all(), [PathBuf::from("/torn")]);
    }

    #[test]
    fn a_line_that_is_torn_is_not_heard() {
        let mut held = Held::default();
        held.update(b"+/a", Instant::now());
        assert!(held.all().is_empty());
    }
}
