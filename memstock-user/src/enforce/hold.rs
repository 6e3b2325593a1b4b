//! Holds the tasks of a subtree while room is made or a victim chosen: freezes the cgroup (`cgroup.freeze`), and thaws
//! it when the hold is dropped. If that fails, the guard thaws it or, if both were killed, the next start.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context as _, Result};
use rustix::fs::XattrFlags;
use rustix::fs::inotify;

use super::freeze::{MARK, file, is_marked, let_go, unmark};
use super::guard::Guard;
use super::victim::own_cgroup_below;
use crate::engine::kernel_cgroup::directories;
use crate::host::cgroup::{Cgroup, CgroupMount, display};

/// Watches for other writers to `cgroup.freeze`. Kept from hold to hold: closing an inotify descriptor waits for a
/// kernel grace period, tens of milliseconds in which released tasks would go on charging.
#[derive(Debug)]
pub struct Writes(OwnedFd);

impl Writes {
    /// Starts without watching anything.
    ///
    /// # Errors
    /// No inotify instance is left (`fs.inotify.max_user_instances`).
    pub fn new() -> Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        inotify::init(flags)
            .map(Self)
            .context("cannot watch files, so tasks of full cgroups are not held")
    }

    /// Whether anybody has written since the last call.
    fn happened(&self) -> bool {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let events = std::iter::from_fn(|| Some(reader.next().ok()?.events()));
        events.filter(|event| event.contains(inotify::ReadFlags::MODIFY)).count() > 0
    }
}

/// A frozen subtree.
#[derive(Debug)]
pub struct Hold<'a> {
    guard: Arc<Guard>,
    dir: PathBuf,
    writes: &'a Writes,
    watch: i32,
    /// The value of the mark. After a hang, the same cgroup may have been frozen for another hold.
    mark: [u8; 8],
}

impl<'a> Hold<'a> {
    /// Freezes `cgroup`. Returns `None` if it must not: we are in it ourselves, or somebody else has frozen it and has
    /// to thaw it.
    ///
    /// # Errors
    /// The guard is gone or the kernel refuses.
    pub fn freeze(guard: &Arc<Guard>, writes: &'a Writes, cgroup: &Cgroup) -> Result<Option<Self>> {
        if own_cgroup_below(&cgroup.path)?.is_some() {
            return Ok(None);
        }
        let dir = &cgroup.dir;
        let file = file(dir);
        let cannot = || format!("cannot freeze cgroup {}", display(&cgroup.path));
        if fs::read_to_string(&file).with_context(cannot)?.trim() != "0" {
            return Ok(None);
        }
        let watch = inotify::add_watch(&writes.0, &file, inotify::WatchFlags::MODIFY);
        let watch = watch.with_context(cannot)?;
        static HOLDS: AtomicU64 = AtomicU64::new(0);
        let mark = HOLDS.fetch_add(1, Relaxed).to_ne_bytes();
        let hold = Self { guard: Arc::clone(guard), dir: dir.clone(), writes, watch, mark };
        guard.holds(dir)?;
        rustix::fs::setxattr(dir, MARK, &mark, XattrFlags::empty()).with_context(cannot)?;
        fs::write(&file, "1").with_context(cannot)?;
        // Discards the event of our own write.
        writes.happened();
        Ok(Some(hold))
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // If somebody else has written to the file, its value is theirs.
        let is_written = self.writes.happened();
        if is_marked(&self.dir, &self.mark) {
            match if is_written { unmark(&self.dir) } else { let_go(&self.dir) } {
                Ok(()) => self.guard.released(&self.dir),
                // Since the guard is not told of a release, it lets go.
                Err(error) => log::warn!("{error:#}; left to the guard"),
            }
        }
        // The watch is removed with its cgroup.
        let _ = inotify::remove_watch(&self.writes.0, self.watch);
    }
}

/// Thaws what was held by a daemon, of whatever version, that was killed together with its guard.
pub fn thaw_left(mount: &CgroupMount) {
    for (_, dir) in directories(mount.dir()) {
        if let Err(error) = let_go(&dir) {
            log::warn!("{error:#}");
        }
    }
}
