//! The reading end of the event stream: any number of readers, each on its own. Owns the order of the two
//! files, what a rotation does to it, and the finding of gaps; waits for nothing and prints nothing.
//!
//! A reader holds files, not names: the writer may rename what it reads and remove what it has yet to read, and
//! it goes on. It keeps the offset of the last whole line, so a line of which a part is there is read when
//! all of it is. Only a reader that is more than two files behind loses records, and says how many.

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

/// Bytes asked for at once; more than any line has.
const CHUNK: usize = 256 * 1024;

/// A record, and the line that it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The line of the file, without its end; made up here for a gap.
    pub line: String,
    /// What it says.
    pub entry: Entry,
}

/// One reader's place in the stream.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// Being read, and to be read after it.
    files: VecDeque<Part>,
    last_seq: Option<u64>,
    is_over: bool,
    chunk: Vec<u8>,
}

/// A file of the stream, and how far it was read.
#[derive(Debug)]
struct Part {
    file: File,
    inode: (u64, u64),
    offset: u64,
}

impl Reader {
    /// At the oldest record that is there.
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

    /// Whether the engine that was read of has ended: the last record says so, or another one's came.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Hands over each whole line that is there now, in order, until there is none or `take` fails.
    ///
    /// # Errors
    /// A file cannot be read; the inner one is that of `take`.
    pub fn read(
        &mut self,
        mut take: impl FnMut(&Read) -> io::Result<()>,
    ) -> Result<io::Result<()>> {
        loop {
            self.look()?;
            let Some(part) = self.files.front_mut() else { return Ok(Ok(())) };
            let text = part.whole_lines(&mut self.chunk)?;
            if text.is_empty() {
                // A file that has a successor is not written to any more, and this was seen before it was
                // read to its end.
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
                        // Its number is missing then, and said to be.
                        log::warn!("a line of the event stream is unreadable: {error:#}");
                        continue;
                    }
                };
                let seq = read.entry.seq;
                if self.last_seq.is_some_and(|last| seq <= last) {
                    // Numbers begin anew with an engine: the one before was killed, and all of it removed.
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

    /// Opens what came after the last file that is open, if anything did.
    fn look(&mut self) -> Result<()> {
        let [before, current] = [BEFORE, CURRENT].map(|name| self.dir.join(name));
        // A rotation between the two would hide a file: both names are to be of one moment.
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
                    "{} is root's: run it as root, for example with sudo",
                    path.display()
                )));
            }
            file => file.with_context(|| format!("cannot open {}", path.display()))?,
        };
        let meta = file.metadata().with_context(|| format!("cannot stat {}", path.display()))?;
        Ok(Some(Self { file, inode: (meta.dev(), meta.ino()), offset: 0 }))
    }

    /// The whole lines that come next, as many as fit.
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

/// The record that stands for those missing between number `last` and `next`.
fn gap(last: u64, next: &Entry) -> Option<Read> {
    let missing = next.seq.checked_sub(last + 1).filter(|&missing| missing > 0)?;
    let record = Record::lost(StreamStat::RecordsLost.stat(), missing);
    let entry = Entry { seq: last + 1, record, ..next.clone() };
    Some(Read { line: serde_json::to_string(&entry).unwrap_or_default(), entry })
}
