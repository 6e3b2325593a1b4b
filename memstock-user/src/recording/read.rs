//! Reads a recording, or what there is of one that was cut. Errors are one line.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use memstock_common::record::{BLOCK_PAGES, block_hash, is_followed};

use super::charges;
use super::format::{Before, Entry, HeaderEntry, MAGIC, VERSION};
use super::frame::{self, Kind, Next};
use super::{AccessKind, End, Moment, Recording};
use crate::exit::Failure;
use crate::host::cgroup::display;

/// Entries have at most so many bytes for one of the file: 4 KiB of equal ones, which is what the writer puts into a
/// frame, have a hundred.
const TIMES: usize = 128;
/// No host has more pages; sums of a few such numbers do not overflow.
pub(super) const MOST_PAGES: u64 = 1 << 52;
/// The lowest rate at which blocks are followed: one in so many.
const RAREST: u32 = 1 << 24;

/// Reads the recording in the file `path`.
///
/// A recording that was cut is read up to there, and has no [`end`](Recording::end). Accesses are reduced to the blocks
/// that were followed at the lowest rate of the recording, and [`one_in`](super::Access::one_in) of each is that rate.
///
/// # Errors
/// The file does not exist, is not a recording, has another version, or is damaged.
pub fn read(path: &Path) -> Result<Recording> {
    let name = display(path);
    let kind = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::Other
                .error(format!("there is no {name}: \"memstock record -- COMMAND\" makes one")));
        }
        found => found.with_context(|| format!("cannot read {name}"))?.file_type(),
    };
    // Before it is opened: opening a FIFO waits for a writer.
    if !kind.is_file() {
        let what = if kind.is_dir() { "a directory" } else { "not a file" };
        return Err(Failure::Other.error(format!("{name} is {what}: name a recording")));
    }
    let mut file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    parse(&bytes).map_err(|wrong| Failure::Other.error(format!("{name} {wrong}")))
}

/// Parses the bytes of a recording.
///
/// # Errors
/// What is wrong with them, without the name of the file.
pub fn parse(bytes: &[u8]) -> std::result::Result<Recording, String> {
    if bytes.is_empty() {
        return Err("is empty: it is not a recording".into());
    }
    let is_begun = MAGIC.starts_with(bytes);
    let Some(rest) = bytes.strip_prefix(&MAGIC).filter(|_| !is_begun) else {
        return Err(if is_begun { cut() } else { "is not a recording made by memstock".into() });
    };
    let Some((version, rest)) = rest.split_first_chunk() else { return Err(cut()) };
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(format!("has format {version}, and this memstock reads format {VERSION}"));
    }
    let damaged = |rest: &[u8]| format!("is damaged at byte {}", bytes.len() - rest.len());
    let (header, mut rest) = match frame::next(rest) {
        Next::Frame(Kind::Header, payload, behind) => {
            (whole::<HeaderEntry<'_>>(payload).ok_or_else(|| damaged(rest))?, behind)
        }
        Next::Cut => return Err(cut()),
        _ => return Err(damaged(rest)),
    };
    if !header.page_size.is_power_of_two() {
        return Err(damaged(rest));
    }
    let mut reading = Reading { room: TIMES.saturating_mul(bytes.len()), ..Reading::default() };
    reading.recording.header = header.into_header();
    loop {
        let behind = match frame::next(rest) {
            Next::Cut => break,
            Next::Frame(Kind::Entries, payload, behind) => {
                reading.entries(payload).ok_or_else(|| damaged(rest))?;
                behind
            }
            Next::Frame(Kind::End, payload, behind) => {
                let end = whole::<End>(payload).filter(|_| behind.is_empty());
                reading.recording.end = Some(end.ok_or_else(|| damaged(rest))?);
                break;
            }
            _ => return Err(damaged(rest)),
        };
        rest = behind;
    }
    Ok(reading.done())
}

fn cut() -> String {
    "was cut within its header: nothing was recorded".into()
}

/// Decodes a payload that must hold one value and nothing else.
fn whole<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(payload).ok()?;
    rest.is_empty().then_some(value)
}

fn is_possible(moment: &Moment) -> bool {
    let Moment { usage, needed, file, dirty, mlocked, shmem, .. } = *moment;
    let kernel = [moment.slab_reclaimable, moment.slab_unreclaimable, moment.stacks];
    let all = [usage, needed, file, dirty, mlocked, shmem].into_iter();
    all.chain(kernel.into_iter().flatten()).all(|pages| pages <= MOST_PAGES)
}

#[derive(Default)]
struct Reading {
    recording: Recording,
    before: Before,
    /// The key by which the blocks of each file are hashed.
    keys: Vec<u64>,
    charges: charges::Reading,
    /// How many bytes of entries are still allowed.
    room: usize,
}

impl Reading {
    fn entries(&mut self, payload: &[u8]) -> Option<()> {
        let unpacked = frame::unpack(payload, self.room)?;
        self.room -= unpacked.len();
        let mut entries = &unpacked[..];
        while !entries.is_empty() {
            let (entry, rest) = postcard::take_from_bytes(entries).ok()?;
            self.entry(entry)?;
            entries = rest;
        }
        Some(())
    }

    fn entry(&mut self, entry: Entry<'_>) -> Option<()> {
        let Self { recording, before, keys, charges, .. } = self;
        let (access, kind) = match entry {
            Entry::Moment(entry) => {
                recording.moments.push(before.moment(&entry).filter(is_possible)?);
                return Some(());
            }
            Entry::Peak(entry) => {
                recording.peaks.push(before.peak(entry)?);
                return Some(());
            }
            Entry::Task(entry) => {
                recording.tasks.push(before.task(entry)?);
                return Some(());
            }
            Entry::File(entry) => {
                keys.push(entry.key);
                recording.files.push(entry.file());
                return Some(());
            }
            Entry::Program(number) => {
                recording.files.get_mut(number as usize)?.is_program = true;
                return Some(());
            }
            Entry::OneIn(one_in) => {
                before.one_in =
                    Some(one_in).filter(|&one_in| one_in.is_power_of_two() && one_in <= RAREST)?;
                return Some(());
            }
            Entry::Charges(entry) => return charges.take(&entry),
            Entry::Read(access) => (access, AccessKind::Read),
            Entry::Mapped(access) => (access, AccessKind::Mapped),
            Entry::Added(access) => (access, AccessKind::Added),
            Entry::Removed(access) => (access, AccessKind::Removed),
            Entry::Dirtied(access) => (access, AccessKind::Dirtied),
        };
        let access = before.access(&access, kind)?;
        keys.get(access.file as usize)?;
        recording.accesses.push(access);
        Some(())
    }

    fn done(self) -> Recording {
        let Self { mut recording, keys, charges, .. } = self;
        recording.charges = charges.done();
        let one_in = recording.accesses.iter().map(|access| access.one_in).max().unwrap_or(1);
        recording.accesses.retain_mut(|access| {
            access.one_in = one_in;
            let key = keys.get(access.file as usize).copied().unwrap_or_default();
            is_followed(block_hash(key, access.index / BLOCK_PAGES), one_in)
        });
        recording
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Header, Writer};

    fn header() -> Header {
        Header { page_size: 4096, ..Header::default() }
    }

    #[test]
    fn what_compresses_best_can_be_read() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        for _ in 0..1_000_000 {
            writer.moment(&Moment::default()).unwrap();
        }
        writer.flush().unwrap();
        assert_eq!(parse(&bytes).unwrap().moments.len(), 1_000_000);
    }

    /// A frame of 5,000 moments without news has 100 bytes.
    #[test]
    fn a_small_file_takes_bounded_memory() {
        let mut bytes = Vec::new();
        drop(Writer::new(&mut bytes, &header()).unwrap());
        let mut frame = Vec::new();
        frame::write(&mut frame, Kind::Entries, &frame::pack(&[0; 11 * 5000])).unwrap();
        let wrong = parse(&[&bytes, &frame.repeat(1000)[..]].concat()).unwrap_err();
        assert!(wrong.contains("damaged"), "{wrong}");
    }

    /// Opening one would wait for somebody to write to it.
    #[test]
    fn a_fifo_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        assert!(super::read(&path).unwrap_err().to_string().contains("not a file"));
    }
}
