//! Writes a recording as it happens: what was written stays readable if nothing follows.

use std::collections::BTreeMap;
use std::fs::File as Disk;
use std::io::{self, Write};

use super::charges::{Charge, Charger, ChargesEntry};
use super::format::{Before, Entry, FileEntry, HeaderEntry, MAGIC, VERSION};
use super::frame::{self, Kind};
use super::{Access, End, File, Header, Moment, Peak, TaskEvent};

/// Bytes of entries after which a frame is written.
const FRAME: usize = 4096;

/// Writes a recording. If the process dies, what was not [flushed](Self::flush) is lost, some 4 KiB at most.
///
/// After an error nothing more is written, so that the recording stays readable up to there.
#[derive(Debug)]
pub struct Writer<W = Disk> {
    to: W,
    before: Before,
    /// Entries not yet written.
    entries: Vec<u8>,
    /// The number of each file, by the key that its blocks are hashed by, its device and its inode.
    files: BTreeMap<(u64, u64, u64), u32>,
    /// The CPU of the last charge.
    cpu: Option<u32>,
    bytes: u64,
    has_failed: bool,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    ///
    /// # Errors
    /// `to` cannot be written.
    pub fn new(mut to: W, header: &Header) -> io::Result<Self> {
        to.write_all(&MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        let mut writer = Self {
            to,
            before: Before::default(),
            entries: Vec::new(),
            files: BTreeMap::new(),
            cpu: None,
            bytes: (MAGIC.len() + size_of_val(&VERSION)) as u64,
            has_failed: false,
        };
        writer.frame(Kind::Header, &bytes(&HeaderEntry::of(header))?)?;
        Ok(writer)
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a moment.
    ///
    /// # Errors
    /// The file cannot be written; the same holds for the methods below.
    pub fn moment(&mut self, moment: &Moment) -> io::Result<()> {
        let entry = Entry::Moment(self.before.note_moment(moment));
        self.entry(&entry)
    }

    /// Adds a peak.
    ///
    /// # Errors
    /// As above.
    pub fn peak(&mut self, peak: &Peak) -> io::Result<()> {
        let entry = Entry::Peak(self.before.note_peak(peak));
        self.entry(&entry)
    }

    /// Adds an event of a task.
    ///
    /// # Errors
    /// As above.
    pub fn task(&mut self, event: &TaskEvent) -> io::Result<()> {
        let entry = Entry::Task(self.before.note_task(event));
        self.entry(&entry)
    }

    /// The number of a file whose blocks are hashed by `key`, if it was added.
    pub fn number_of(&self, key: u64, device: u64, inode: u64) -> Option<u32> {
        self.files.get(&(key, device, inode)).copied()
    }

    /// Adds a file, and numbers it.
    ///
    /// # Errors
    /// As above.
    pub fn file(&mut self, file: &File, key: u64) -> io::Result<u32> {
        self.entry(&Entry::File(FileEntry::of(file, key)))?;
        let number = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        Ok(*self.files.entry((key, file.device, file.inode)).or_insert(number))
    }

    /// Notes that the file of this number is a program or a library.
    ///
    /// # Errors
    /// As above.
    pub fn program(&mut self, number: u32) -> io::Result<()> {
        self.entry(&Entry::Program(number))
    }

    /// Adds an access, which must lie within one block.
    ///
    /// # Errors
    /// As above.
    pub fn access(&mut self, access: &Access) -> io::Result<()> {
        if self.before.one_in != access.one_in {
            self.before.one_in = access.one_in;
            self.entry(&Entry::OneIn(access.one_in))?;
        }
        let entry = self.before.note_access(access);
        self.entry(&entry)
    }

    /// Notes that charges are recorded, of an engine with this batch and these slots.
    ///
    /// # Errors
    /// As above.
    pub fn charges(&mut self, batch: u32, slots: u32) -> io::Result<()> {
        self.entry(&Entry::Charges(ChargesEntry::Begun(batch, slots)))
    }

    /// Adds a cgroup; must come before its charges, and after its parent.
    ///
    /// # Errors
    /// As above.
    pub fn charger(&mut self, charger: &Charger) -> io::Result<()> {
        self.entry(&Entry::Charges(ChargesEntry::of_charger(charger)))
    }

    /// Adds a charge.
    ///
    /// # Errors
    /// As above.
    pub fn charge(&mut self, charge: Charge) -> io::Result<()> {
        if self.cpu != Some(charge.cpu) {
            self.cpu = Some(charge.cpu);
            self.entry(&Entry::Charges(ChargesEntry::Cpu(charge.cpu)))?;
        }
        self.entry(&Entry::Charges(ChargesEntry::of(charge)))
    }

    /// Writes the entries not yet written.
    ///
    /// # Errors
    /// As above.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let mut entries = std::mem::take(&mut self.entries);
        let written = self.frame(Kind::Entries, &frame::pack(&entries));
        entries.clear();
        self.entries = entries;
        written
    }

    /// Ends the recording; returns its size in bytes.
    ///
    /// # Errors
    /// As above.
    pub fn end(mut self, end: &End) -> io::Result<u64> {
        self.flush()?;
        self.frame(Kind::End, &bytes(end)?)?;
        Ok(self.bytes)
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let entries = std::mem::take(&mut self.entries);
        self.entries = postcard::to_extend(entry, entries).map_err(io::Error::other)?;
        if self.entries.len() < FRAME { Ok(()) } else { self.flush() }
    }

    fn frame(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        if self.has_failed {
            return Ok(());
        }
        let mut counted = Counted { to: &mut self.to, bytes: 0 };
        let written = frame::write(&mut counted, kind, payload);
        self.bytes += counted.bytes;
        // What follows half a frame could not be read.
        self.has_failed = written.is_err();
        written
    }
}

fn bytes(value: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

/// Counts the bytes written.
struct Counted<'a, W> {
    to: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.to.write(bytes)?;
        self.bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
