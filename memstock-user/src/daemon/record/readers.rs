//! Watches, with fanotify, the files by which programs learn their limit or the host's memory: a program that reads them
//! may size itself by what it finds. Delays nobody.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::host::mountinfo;
use crate::host::process::directory;

const LIMIT: &str = "reads its memory limit, and may size itself by it";
const MEMINFO: &str = "reads /proc/meminfo, and may size itself by the host's memory";

/// The files of a root directory; on cgroup v2 and v1 the limits are those of its cgroup namespace.
const FILES: [&str; 3] =
    ["proc/meminfo", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// File systems of root directories that need no server.
const ROOTS: [&str; 12] = [
    "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "overlay", "rootfs", "squashfs", "tmpfs",
    "xfs", "zfs",
];

/// The most programs that are reported for each reason.
const MOST: usize = 32;
/// After this time, a reader that is not known is not one of the cgroup's.
const KNOWN: Duration = Duration::from_secs(1);

/// The watched files, and who has read them.
#[derive(Debug)]
pub(super) struct Readers {
    /// None if the kernel refuses; then only known runtimes are reported.
    fanotify: Option<Fanotify>,
    /// The devices of root directories, and whether their files can be looked up.
    roots: HashMap<(u32, u32), bool>,
    /// Programs that were reported, by the reason: their names, or the ids of processes that have ended.
    reported: HashMap<&'static str, HashSet<String>>,
    /// Readers that were not known yet, since when.
    unknown: Vec<(Instant, u32, &'static str)>,
}

impl Readers {
    /// Watches the files of this mount namespace.
    pub(super) fn watch() -> Self {
        let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_NONBLOCK | InitFlags::FAN_CLOEXEC;
        let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC);
        let fanotify = fanotify.inspect_err(|error| log::debug!("no fanotify: {error}")).ok();
        let mut readers =
            Self { fanotify, roots: HashMap::new(), reported: HashMap::new(), unknown: Vec::new() };
        readers.add_task(std::process::id());
        readers
    }

    /// What cannot be seen, if anything.
    pub(super) fn lack(&self) -> Option<String> {
        let lack = "Who reads its memory limit is not known: the kernel refuses fanotify.";
        self.fanotify.is_none().then(|| lack.to_owned())
    }

    /// Watches the limit of a memory cgroup of the kernel's as well.
    pub(super) fn add_cgroup(&self, dir: &Path) {
        for file in ["memory.max", "memory.limit_in_bytes"] {
            self.add(&dir.join(file));
        }
    }

    /// Watches the files that a task sees, after each exec: in a container they are others. What it reads in the first 10
    /// ms or so, before its exec is known, is missed.
    pub(super) fn add_task(&mut self, pid: u32) {
        let dir = directory(pid.cast_signed());
        let root = dir.join("root");
        // Asks no server.
        let flags = AtFlags::STATX_DONT_SYNC;
        let Ok(found) = statx(CWD, &root, flags, StatxFlags::empty()) else { return };
        let device = (found.stx_dev_major, found.stx_dev_minor);
        if *self.roots.entry(device).or_insert_with(|| needs_no_server(&dir)) {
            for file in FILES {
                self.add(&root.join(file));
            }
        }
    }

    /// A file that does not exist is none to watch.
    fn add(&self, path: &Path) {
        if let Some(fanotify) = &self.fanotify {
            let (flags, mask) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN);
            let _ = fanotify.mark(flags, mask, CWD, Some(path));
        }
    }

    /// Who has read one of them since the last call, and why that is reported: once for each program and reason. Only
    /// those count that `is_ours` knows, now or within a second: processes may become known later.
    pub(super) fn opened(&mut self, is_ours: impl Fn(u32) -> bool) -> Vec<(u32, &'static str)> {
        let now = Instant::now();
        while let Some(events) = self.fanotify.as_ref().and_then(|it| it.read_events().ok()) {
            let readers = events.iter().filter_map(reader);
            let new: HashSet<_> = readers.collect();
            self.unknown.extend(new.into_iter().map(|(pid, why)| (now, pid, why)));
        }
        let is_known = |&mut (_, pid, _): &mut (Instant, u32, _)| is_ours(pid);
        let known: Vec<_> = self.unknown.extract_if(.., is_known).collect();
        self.unknown.retain(|(since, ..)| now.duration_since(*since) < KNOWN);
        let known = known.into_iter().filter(|&(_, pid, why)| {
            let reported = self.reported.entry(why).or_default();
            let comm = fs::read_to_string(directory(pid.cast_signed()).join("comm"));
            reported.len() < MOST && reported.insert(comm.unwrap_or_else(|_| pid.to_string()))
        });
        known.map(|(_, pid, why)| (pid, why)).collect()
    }
}

/// Whether files in the root directory of a process are looked up without a server: that may be in the recorded cgroup,
/// and held. What is below an overlay is not looked at.
fn needs_no_server(process: &Path) -> bool {
    let mounts = mountinfo::parse(&fs::read(process.join("mountinfo")).unwrap_or_default());
    let root = mounts.iter().rfind(|mount| mount.point == Path::new("/"));
    root.is_some_and(|root| ROOTS.contains(&root.fs_type.as_str()))
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
    fn a_reader_is_reported_once() {
        if memstock_tests::live::is_refused() {
            return;
        }
        let own = std::process::id();
        let mut readers = Readers::watch();
        let read = || fs::read("/proc/meminfo").map(drop).unwrap();
        read();
        // Known at the second call only; other tests of this process may read it, too.
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
