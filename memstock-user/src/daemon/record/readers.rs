//! Watches, with fanotify, the files by which programs learn their limit or the host's memory: who reads these may size
//! itself by what it finds. Delays nobody, and opens nothing of the recorded tasks but these files.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};

use crate::host::process::directory;

const LIMIT: &str = "reads its memory limit, and may size itself by it";
const MEMINFO: &str = "reads /proc/meminfo, and may size itself by the host's memory";

/// The files of a root directory; on cgroup v2 and v1 the limits are those of its cgroup namespace.
const FILES: [&str; 3] =
    ["proc/meminfo", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// The most processes that are told of for each reason.
const MOST: usize = 8;

/// The watched files, and who has read them.
#[derive(Debug)]
pub(super) struct Readers {
    /// None if the kernel refuses; then only known runtimes are told of.
    fanotify: Option<Fanotify>,
    /// The mount namespaces of which the files are watched.
    namespaces: HashSet<u64>,
    /// Processes that were told of, by the reason.
    told: HashMap<&'static str, HashSet<u32>>,
    /// Readers that were not known when they were first heard of.
    unknown: Vec<(u32, &'static str)>,
}

impl Readers {
    /// Watches the files of this mount namespace.
    pub(super) fn watch() -> Self {
        let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_NONBLOCK | InitFlags::FAN_CLOEXEC;
        let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC);
        let fanotify = fanotify.inspect_err(|error| log::debug!("no fanotify: {error}")).ok();
        let mut readers = Self {
            fanotify,
            namespaces: HashSet::new(),
            told: HashMap::new(),
            unknown: Vec::new(),
        };
        readers.add_task(std::process::id());
        readers
    }

    /// Watches the limit of a memory cgroup of the kernel's as well.
    pub(super) fn add_cgroup(&self, dir: &Path) {
        for file in ["memory.max", "memory.limit_in_bytes"] {
            self.add(&dir.join(file));
        }
    }

    /// Watches the files that a task sees: in a container they are others. What it reads before it is heard of, some 10
    /// ms after its exec, is missed.
    pub(super) fn add_task(&mut self, pid: u32) {
        let dir = directory(pid.cast_signed());
        let Ok(namespace) = fs::metadata(dir.join("ns/mnt")) else { return };
        if self.namespaces.insert(namespace.ino()) {
            for file in FILES {
                self.add(&dir.join("root").join(file));
            }
        }
    }

    /// A file that does not exist is none to watch.
    fn add(&self, path: &Path) {
        if let Some(fanotify) = &self.fanotify {
            let (flags, mask) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN);
            let _ = fanotify.mark(flags, mask, rustix::fs::CWD, Some(path));
        }
    }

    /// Who has read one of them since the last call, and why that is told: once for each process and reason. Only those
    /// count of which `is_ours` knows, at this call or, since processes may be heard of later, the next.
    pub(super) fn opened(&mut self, is_ours: impl Fn(u32) -> bool) -> Vec<(u32, &'static str)> {
        let events = self.fanotify.as_ref().map(Fanotify::read_events);
        let events = events.and_then(Result::ok).unwrap_or_default();
        let new: HashSet<_> = events.iter().filter_map(reader).collect();
        let before = std::mem::take(&mut self.unknown).into_iter().filter(|(pid, _)| is_ours(*pid));
        let (known, unknown): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|(pid, _)| is_ours(*pid));
        self.unknown = unknown;
        let mut all: Vec<_> = before.chain(known).collect();
        all.retain(|&(pid, why)| {
            let told = self.told.entry(why).or_default();
            told.len() < MOST && told.insert(pid)
        });
        all
    }
}

fn reader(event: &FanotifyEvent) -> Option<(u32, &'static str)> {
    let path = fs::read_link(format!("/proc/self/fd/{}", event.fd()?.as_raw_fd())).ok()?;
    let why = if path.ends_with("meminfo") { MEMINFO } else { LIMIT };
    Some((event.pid().cast_unsigned(), why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_told_of_once() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let own = std::process::id();
        let mut readers = Readers::watch();
        let read = || fs::read("/proc/meminfo").map(drop).unwrap();
        read();
        // Heard of at the second call only; other tests of this process may read it, too.
        assert_eq!(readers.opened(|_| false), []);
        assert_eq!(readers.opened(|pid| pid == own), [(own, MEMINFO)]);
        read();
        assert_eq!(readers.opened(|pid| pid == own), []);
        let dir = tempfile::tempdir().unwrap();
        readers.add_cgroup(dir.path());
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        readers.add_cgroup(dir.path());
        fs::read(dir.path().join("memory.max")).unwrap();
        assert_eq!(readers.opened(|pid| pid == own), [(own, LIMIT)]);
    }
}
