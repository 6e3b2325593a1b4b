//! The writing end of the event stream; only the daemon has one. Owns numbering and rotation; knows nothing of readers.
//! `stderr` passes a part of it to standard error.
//!
//! A record that cannot be written (no space in /run) leaves a gap in the numbers, by which readers notice. It never
//! ends the daemon, and never leaves half a line.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use super::kind::Counts;
use super::record::{Entry, Record};
use super::stderr::Stderr;
use super::{BEFORE, CURRENT, remove_in};
use crate::host;
use crate::host::lock::RUN_DIR;

/// The stream of an engine. If the daemon dies, the next one continues it; [`end`](Self::end) ends it.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    max_bytes: u64,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    bytes: u64,
    next_seq: u64,
    counts: Counts,
    /// None if events are not for standard error.
    stderr: Option<Stderr>,
    failed: bool,
    /// Why a record could not be written, until [`outcome`](Journal::outcome) is called.
    error: Option<anyhow::Error>,
}

impl Journal {
    /// Opens the stream, and continues the numbers of a daemon that died. Only the holder of the engine's lock may call
    /// this. With `to_stderr`, events are also printed on standard error.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn open(max_bytes: u64, to_stderr: bool) -> Result<Self> {
        let mut journal = Self::open_in(Path::new(RUN_DIR), max_bytes)?;
        journal.state.get_mut().stderr = to_stderr.then(Stderr::default);
        Ok(journal)
    }

    pub(super) fn open_in(dir: &Path, max_bytes: u64) -> Result<Self> {
        let path = dir.join(CURRENT);
        let file = append_to(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let [before, current] = [BEFORE, CURRENT].map(|name| Written::in_file(&dir.join(name)));
        if current.bytes < current.found {
            // A daemon was killed while writing. Readers wait at the start of the line for the rest.
            file.set_len(current.bytes)
                .with_context(|| format!("cannot shorten {}", path.display()))?;
        }
        let last_seq = before.last_seq.max(current.last_seq);
        let state = State {
            file,
            bytes: current.bytes,
            next_seq: last_seq + 1,
            counts: Counts::default(),
            stderr: None,
            failed: false,
            error: None,
        };
        Ok(Self { dir: dir.to_owned(), max_bytes, state: RefCell::new(state) })
    }

    /// Publishes that nothing follows, and removes the files.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn end(self) -> Result<()> {
        self.publish(Record::Ended);
        remove_in(&self.dir)
    }

    /// Publishes that `record` happened just now, also on standard error if it is for there.
    pub fn publish(&self, record: Record) {
        self.publish_at(host::now_ns(), record);
    }

    /// Publishes that `record` happened at `time_ns` since boot (`CLOCK_MONOTONIC`).
    pub fn publish_at(&self, time_ns: u64, record: Record) {
        let mut state = self.state.borrow_mut();
        let entry = Entry { seq: state.next_seq, time_ns, time: wall_clock(time_ns), record };
        state.next_seq += 1;
        state.counts.count(&entry.record);
        if let Some(stderr) = &mut state.stderr {
            stderr.tell(&entry);
        }
        match self.append(&mut state, &entry) {
            Ok(()) => (state.failed, state.error) = (false, None),
            Err(error) => {
                let error = error.context("records are missing from the event stream");
                if !state.failed {
                    log::warn!("{error:#}");
                }
                (state.failed, state.error) = (true, Some(error));
            }
        }
    }

    /// Prints on standard error how many events were withheld there, in the seconds that are over, or if `at_last`, in
    /// all.
    pub fn tell_withheld(&self, at_last: bool) {
        let until_ns = if at_last { u64::MAX } else { host::now_ns() };
        if let Some(stderr) = &mut self.state.borrow_mut().stderr {
            stderr.tell_withheld(until_ns);
        }
    }

    /// The number of records of each kind that this daemon has published.
    pub fn counts(&self) -> Counts {
        self.state.borrow().counts
    }

    /// Whether records could be written since the last call; `None` if that was not tried again after a failure.
    pub fn outcome(&self) -> Option<Result<()>> {
        let mut state = self.state.borrow_mut();
        match state.error.take() {
            Some(error) => Some(Err(error)),
            None => (!state.failed).then_some(Ok(())),
        }
    }

    fn append(&self, state: &mut State, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let len = line.len() as u64;
        if state.bytes > 0 && state.bytes + len > self.max_bytes {
            self.rotate(state)?;
        }
        // One write(2): a reader sees the whole line or, without space, a part that is removed again.
        let written = state.file.write(&line);
        if written.as_ref().is_ok_and(|&written| written == line.len()) {
            state.bytes += len;
            return Ok(());
        }
        state.file.set_len(state.bytes).context("cannot remove half a line")?;
        written.and(Err(io::ErrorKind::StorageFull.into())).context("cannot append")
    }

    fn rotate(&self, state: &mut State) -> Result<()> {
        let current = self.dir.join(CURRENT);
        match fs::rename(&current, self.dir.join(BEFORE)) {
            // It was renamed earlier, and the new file could not be made; or somebody removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.with_context(|| format!("cannot rename {}", current.display()))?,
        }
        state.file =
            append_to(&current).with_context(|| format!("cannot open {}", current.display()))?;
        state.bytes = 0;
        Ok(())
    }
}

/// The contents of an existing file of the stream.
#[derive(Default)]
struct Written {
    last_seq: u64,
    /// Bytes of whole lines.
    bytes: u64,
    /// Bytes in all.
    found: u64,
}

impl Written {
    /// A file that does not exist, or holds other things, has no record.
    fn in_file(path: &Path) -> Self {
        let text = fs::read(path).unwrap_or_default();
        let bytes = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines = text[..bytes].rsplit(|&byte| byte == b'\n');
        let entry = lines.filter_map(|line| serde_json::from_slice::<Entry>(line).ok()).next();
        Self {
            last_seq: entry.map_or(0, |entry| entry.seq),
            bytes: bytes as u64,
            found: text.len() as u64,
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    // Files of older versions are readable by all. The stream names processes that /proc may hide (hidepid).
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn wall_clock(time_ns: u64) -> String {
    let ago = Duration::from_nanos(host::now_ns().saturating_sub(time_ns));
    humantime::format_rfc3339_millis(SystemTime::now() - ago).to_string()
}
