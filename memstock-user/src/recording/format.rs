//! The bytes of a recording inside its frames: entries, each encoded as the difference from the one before.
//! `docs/recording.md` describes the format; any change here also changes [`VERSION`].

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::charges::ChargesEntry;
use super::{Access, AccessKind, Header, Holder, Lru, Moment, Peak, TaskEvent, TaskEventKind};
use crate::host::workload::{Kind, Workload};

/// The first bytes of a recording.
pub(super) const MAGIC: [u8; 8] = *b"MEMSTOCK";
/// The format that this memstock writes and reads.
pub(super) const VERSION: u32 = 6;

/// An entry; the payload of a frame of entries is a sequence of these.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Entry<'a> {
    Moment(MomentEntry),
    Peak(PeakEntry),
    Task(TaskEntry),
    /// The next file; files are numbered from 0.
    #[serde(borrow)]
    File(FileEntry<'a>),
    /// One in so many blocks is followed from now on.
    OneIn(u32),
    Read(AccessEntry),
    Mapped(AccessEntry),
    Added(AccessEntry),
    Removed(AccessEntry),
    Dirtied(AccessEntry),
    #[serde(borrow)]
    Charges(ChargesEntry<'a>),
    /// The file of this number is a program or a library.
    Program(u32),
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct HeaderEntry<'a> {
    version: &'a str,
    host: &'a str,
    kernel: &'a str,
    is_multi_gen: bool,
    swap: u64,
    thp: &'a str,
    cpus: u32,
    pub(super) page_size: u32,
    cgroup: &'a [u8],
    command: Vec<&'a str>,
    started: u64,
    assumes: Vec<&'a str>,
    #[serde(borrow)]
    name: Option<NameEntry<'a>>,
}

/// The kind, the whole name, and the names of the pod, the namespace and the container.
type NameEntry<'a> = (Kind, &'a str, [Option<&'a str>; 3]);

impl<'a> HeaderEntry<'a> {
    pub(super) fn of(header: &'a Header) -> Self {
        let Header { version, host, kernel, lru, swap, thp, cpus, page_size, .. } = header;
        Self {
            version,
            host,
            kernel,
            is_multi_gen: *lru == Lru::MultiGen,
            swap: *swap,
            thp,
            cpus: *cpus,
            page_size: *page_size,
            cgroup: header.cgroup.as_os_str().as_bytes(),
            command: header.command.iter().map(String::as_str).collect(),
            started: header.started,
            assumes: header.assumes.iter().map(String::as_str).collect(),
            name: header.name.as_ref().map(|Workload { kind, name, pod, namespace, container }| {
                (*kind, name.as_str(), [pod, namespace, container].map(Option::as_deref))
            }),
        }
    }

    pub(super) fn into_header(self) -> Header {
        let own = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect();
        Header {
            version: self.version.into(),
            host: self.host.into(),
            kernel: self.kernel.into(),
            lru: if self.is_multi_gen { Lru::MultiGen } else { Lru::Classic },
            swap: self.swap,
            thp: self.thp.into(),
            cpus: self.cpus,
            page_size: self.page_size,
            cgroup: path(self.cgroup),
            command: own(self.command),
            started: self.started,
            assumes: own(self.assumes),
            name: self.name.map(|(kind, name, parts)| {
                let [pod, namespace, container] = parts.map(|part| part.map(str::to_owned));
                Workload { kind, name: name.into(), pod, namespace, container }
            }),
        }
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct MomentEntry {
    after_us: u64,
    /// The changes of the first six numbers.
    changes: [i64; 6],
    slab_reclaimable: Option<u64>,
    slab_unreclaimable: Option<u64>,
    stacks: Option<u64>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct PeakEntry {
    after_us: u64,
    needed: u64,
    tasks: Vec<Holder>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct TaskEntry {
    after_us: u64,
    pid: u32,
    kind: TaskEventKind,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct FileEntry<'a> {
    device: u64,
    inode: u64,
    path: Option<&'a [u8]>,
    /// The key by which its blocks were hashed.
    pub(super) key: u64,
}

impl<'a> FileEntry<'a> {
    pub(super) fn of(file: &'a super::File, key: u64) -> Self {
        let path = file.path.as_ref().map(|path| path.as_os_str().as_bytes());
        Self { device: file.device, inode: file.inode, path, key }
    }

    pub(super) fn file(&self) -> super::File {
        let path = self.path.map(path);
        super::File { device: self.device, inode: self.inode, path, is_program: false }
    }
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct AccessEntry {
    after_us: u64,
    pub(super) file: u32,
    /// Distance from the end of the access before it.
    ahead: i64,
    /// The number of pages less one: no access is to 0 pages.
    more_pages: u32,
}

fn micros(at: Duration) -> u64 {
    at.as_micros().try_into().unwrap_or(u64::MAX)
}

/// Serializes [`End::at`](super::End::at) in microseconds.
pub(super) mod as_micros {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        at: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(micros(*at))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}

/// The values that entries are differences from. Writer and reader both keep them.
#[derive(Debug, Default)]
pub(super) struct Before {
    at_us: u64,
    moment: [u64; 6],
    /// The page after the last access.
    behind: u64,
    /// One in so many blocks is followed; 0 until an entry says so.
    pub(super) one_in: u32,
}

impl Before {
    /// The time since the entry before; 0 for one that comes late.
    fn pass(&mut self, at: Duration) -> u64 {
        let at_us = micros(at).max(self.at_us);
        at_us - std::mem::replace(&mut self.at_us, at_us)
    }

    fn passed(&mut self, after_us: u64) -> Option<Duration> {
        self.at_us = self.at_us.checked_add(after_us)?;
        Some(Duration::from_micros(self.at_us))
    }

    pub(super) fn note_moment(&mut self, moment: &Moment) -> MomentEntry {
        let Moment { at, usage, needed, file, dirty, mlocked, shmem, .. } = *moment;
        let now = [usage, needed, file, dirty, mlocked, shmem];
        let before = std::mem::replace(&mut self.moment, now);
        MomentEntry {
            after_us: self.pass(at),
            changes: std::array::from_fn(|n| now[n].wrapping_sub(before[n]).cast_signed()),
            slab_reclaimable: moment.slab_reclaimable,
            slab_unreclaimable: moment.slab_unreclaimable,
            stacks: moment.stacks,
        }
    }

    pub(super) fn moment(&mut self, entry: &MomentEntry) -> Option<Moment> {
        let now: [u64; 6] =
            std::array::from_fn(|n| self.moment[n].wrapping_add(entry.changes[n].cast_unsigned()));
        self.moment = now;
        let [usage, needed, file, dirty, mlocked, shmem] = now;
        let MomentEntry { slab_reclaimable, slab_unreclaimable, stacks, .. } = *entry;
        let at = self.passed(entry.after_us)?;
        Some(Moment {
            at,
            usage,
            needed,
            file,
            dirty,
            mlocked,
            shmem,
            slab_reclaimable,
            slab_unreclaimable,
            stacks,
        })
    }

    pub(super) fn note_peak(&mut self, peak: &Peak) -> PeakEntry {
        let Peak { at, needed, tasks } = peak;
        PeakEntry { after_us: self.pass(*at), needed: *needed, tasks: tasks.clone() }
    }

    pub(super) fn peak(&mut self, entry: PeakEntry) -> Option<Peak> {
        let PeakEntry { after_us, needed, tasks } = entry;
        Some(Peak { at: self.passed(after_us)?, needed, tasks })
    }

    pub(super) fn note_task(&mut self, event: &TaskEvent) -> TaskEntry {
        let TaskEvent { at, pid, kind } = event;
        TaskEntry { after_us: self.pass(*at), pid: *pid, kind: kind.clone() }
    }

    pub(super) fn task(&mut self, entry: TaskEntry) -> Option<TaskEvent> {
        let TaskEntry { after_us, pid, kind } = entry;
        Some(TaskEvent { at: self.passed(after_us)?, pid, kind })
    }

    pub(super) fn note_access(&mut self, access: &Access) -> Entry<'static> {
        let ahead = access.index.wrapping_sub(self.behind).cast_signed();
        self.behind = access.index.wrapping_add(access.pages.into());
        let entry = AccessEntry {
            after_us: self.pass(access.at),
            file: access.file,
            ahead,
            more_pages: access.pages.saturating_sub(1),
        };
        match access.kind {
            AccessKind::Read => Entry::Read(entry),
            AccessKind::Mapped => Entry::Mapped(entry),
            AccessKind::Added => Entry::Added(entry),
            AccessKind::Removed => Entry::Removed(entry),
            AccessKind::Dirtied => Entry::Dirtied(entry),
        }
    }

    pub(super) fn access(&mut self, entry: &AccessEntry, kind: AccessKind) -> Option<Access> {
        let index = self.behind.wrapping_add(entry.ahead.cast_unsigned());
        let pages = entry.more_pages.checked_add(1)?;
        self.behind = index.checked_add(pages.into())?;
        let one_in = (self.one_in > 0).then_some(self.one_in)?;
        let at = self.passed(entry.after_us)?;
        Some(Access { at, file: entry.file, index, pages, one_in, kind })
    }
}
