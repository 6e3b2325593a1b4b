//! `memstock events`: prints the event stream. Works on its files alone, so any number of them can run at once.
//!
//! `--follow` polls twenty times a second instead of using inotify: to see a rotation, inotify would have to watch all
//! of /run and wake up for every other daemon's files, and polling is needed anyway to see whether the engine still
//! runs and standard output is still read.

use std::io::{self, BufWriter, Write as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::closed_pipe_is_success;
use super::signals::end_well_when_interrupted;
use crate::cli::Events;
use crate::exit::Failure;
use crate::host::lock;
use crate::journal;
use crate::journal::names::Names;
use crate::journal::read::Reader;

/// Between two reads.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two checks whether the engine still runs: a record says that it ended, unless it was killed.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);

/// Prints the existing records and, with `--follow`, new ones until the engine ends.
///
/// # Errors
/// No engine is running or has left records behind, or the files cannot be read.
pub fn events(args: &Events) -> Result<u8> {
    // Checked before reading, so that the last records of an engine that is ending are read.
    let mut runs = runs();
    if !runs && !journal::exists() {
        return Err(
            Failure::NotRunning.error("no engine is running: start one with \"memstock run\"")
        );
    }
    end_well_when_interrupted()?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut reader = Reader::new();
    let mut names = Names::of_host();
    let mut asked = Instant::now();
    loop {
        names.look_again();
        let written = reader.read(|read| {
            let mut entry = read.entry.clone();
            let has_names = names.put(&mut entry);
            match args.json {
                true if has_names => writeln!(out, "{}", serde_json::to_string(&entry)?),
                true => writeln!(out, "{}", read.line),
                false => writeln!(out, "{entry}"),
            }
        })?;
        names.warnings().iter().for_each(|warning| log::warn!("{warning}"));
        let written = written.and_then(|()| out.flush());
        if written.is_err() || !args.follow || !runs || reader.is_over() {
            return closed_pipe_is_success(written);
        }
        if is_unread()? {
            return Ok(0);
        }
        sleep(PAUSE);
        if asked.elapsed() >= ENGINE_PAUSE {
            runs = self::runs();
            asked = Instant::now();
        }
    }
}

/// Whether an engine's daemon runs. An error counts as yes: without privilege, the lock file cannot be read.
fn runs() -> bool {
    !matches!(lock::holder(), Ok(None))
}

/// Whether the reader of standard output has gone away, which would otherwise be noticed only at the next record.
fn is_unread() -> Result<bool> {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&now)) {
        Ok(_) => Ok(fds[0].revents().contains(PollFlags::ERR)),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error).context("cannot poll standard output"),
    }
}
