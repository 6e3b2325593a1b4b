//! The reading end of the event stream: any number of readers, independent of each other. Owns the order of the two
//! files, rotation, and the finding of gaps; waits for nothing and prints nothing.
//!
//! A reader holds open files, so the writer may rename the file being read and remove one that is yet to be read. It
//! keeps the offset of the last whole line, so a partly written line is read when it is complete. Only a reader that is
//! more than two files behind loses records, and reports how many.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use memstock_common::stat::StreamStat;

use super::record::{Entry, Record};
use super::{BEFORE, CURRENT};
use crate::exit::Failure;
use crate::host::lock::RUN_DIR;

/// Bytes read at once; more than any line has.
const CHUNK: usize = 256 * 1024;

/// A record and its line in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The line without its end; made up for a gap.
    pub line: String,
    /// The record.
    pub entry: Entry,
}

/// One reader's position in the stream.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// The file being read and those to read after it.
    files: VecDeque<Part>,
    last_seq: Option<u64>,
    is_over: bool,
    chunk: Vec<u8>,
}

/// A file of the stream, and how far it has been read.
#[derive(Debug)]
struct Part {
    file: File,
    inode: (u64, u64),
    offset: u64,
}

impl Reader {
    /// Starts at the oldest record that exists.
    pub fn new() -> Self {
        Self::of(Path::new(RUN_DIR))
    }

    pub(super) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            files: VecDeque::new(),
            last_seq: None,
            is_over: false,
            chunk: vec![0; CHUNK],
        }
    }

    /// Whether the engine has ended: its last record said so, or the records of another engine followed.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Passes each whole line to `take`, in order, until there are no more or `take` fails.
    ///
    /// # Errors
    /// The outer error: a file cannot be read. The inner one is that of `take`.
    pub fn read(
        &mut self,
        mut take: impl FnMut(&Read) -> io::Result<()>,
    ) -> Result<io::Result<()>> {
        loop {
            self.look()?;
            let Some(part) = self.files.front_mut() else { return Ok(Ok(())) };
            let text = part.whole_lines(&mut self.chunk)?;
            if text.is_empty() {
                // A file with a successor is no longer written to, and the successor was seen before this file was read
                // to its end.
                if self.files.len() == 1 {
                    return Ok(Ok(()));
                }
                self.files.pop_front();
                continue;
            }
            for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                let read = match decode(line) {
                    Ok(read) => read,
                    Err(error) => {
                        // Its missing number is then reported as a gap.
                        log::warn!("a line of the event stream is unreadable: {error:#}");
                        continue;
                    }
                };
                let seq = read.entry.seq;
                if self.last_seq.is_some_and(|last| seq <= last) {
                    // Numbers restart with a new engine: the old one was killed, and its files removed.
                    self.is_over = true;
                    return Ok(Ok(()));
                }
                let gap = self.last_seq.and_then(|last| gap(last, &read.entry));
                self.last_seq = Some(seq);
                self.is_over = read.entry.record == Record::Ended;
                if let Err(error) = gap.iter().chain([&read]).try_for_each(&mut take) {
                    return Ok(Err(error));
                }
            }
        }
    }

    /// Opens files that came after the last open one.
    fn look(&mut self) -> Result<()> {
        let [before, current] = [BEFORE, CURRENT].map(|name| self.dir.join(name));
        // A rotation between the two opens would hide a file: repeat until both are from one moment.
        let (before, current) = loop {
            let parts = (Part::open(&before)?, Part::open(&current)?);
            if inode(&parts.0) == inode(&Part::open(&before)?) {
                break parts;
            }
        };
        let last = self.files.back().map(|part| part.inode);
        if last.is_some() && last == inode(&current) {
            return Ok(());
        }
        let is_new = last.is_none() || last != inode(&before);
        self.files.extend(before.filter(|_| is_new).into_iter().chain(current));
        Ok(())
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Part {
    fn open(path: &Path) -> Result<Option<Self>> {
        let mut options = File::options();
        let file = match options.read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Failure::Permission.error(format!(
                    "only root can read {}: run it as root, for example with sudo",
                    path.display()
                )));
            }
            file => file.with_context(|| format!("cannot open {}", path.display()))?,
        };
        let meta = file.metadata().with_context(|| format!("cannot stat {}", path.display()))?;
        Ok(Some(Self { file, inode: (meta.dev(), meta.ino()), offset: 0 }))
    }

    /// The next whole lines, as many as fit.
    fn whole_lines<'a>(&mut self, chunk: &'a mut [u8]) -> Result<&'a [u8]> {
        let len = self.file.read_at(chunk, self.offset).context("cannot read the event stream")?;
        let end = chunk[..len].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.offset += end as u64;
        Ok(&chunk[..end])
    }
}

fn inode(part: &Option<Part>) -> Option<(u64, u64)> {
    part.as_ref().map(|part| part.inode)
}

fn decode(line: &[u8]) -> Result<Read> {
    let line = std::str::from_utf8(line)?;
    Ok(Read { line: line.to_owned(), entry: serde_json::from_str(line)? })
}

/// The record that stands for the missing ones between number `last` and `next`.
fn gap(last: u64, next: &Entry) -> Option<Read> {
    let missing = next.seq.checked_sub(last + 1).filter(|&missing| missing > 0)?;
    let record = Record::lost(StreamStat::RecordsLost.stat(), missing);
    let entry = Entry { seq: last + 1, record, ..next.clone() };
    Some(Read { line: serde_json::to_string(&entry).unwrap_or_default(), entry })
}
