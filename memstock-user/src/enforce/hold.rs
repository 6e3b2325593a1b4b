//! Holds the tasks of a subtree while it is decided what becomes of them: freezes the cgroup (`cgroup.freeze`), and lets go
//! of it when the hold is dropped, or by the guard, or, had both been killed, by the next start.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustix::fs::XattrFlags;
use rustix::fs::inotify;

use super::guard::Guard;
use super::task::own_cgroup;
use crate::cgroup::{ById, Cgroup, CgroupMount, display};
use crate::engine::Engine;

/// Extended attribute of a cgroup that is frozen by us: it goes with the cgroup, and stays if we die.
const MARK: &str = "trusted.memstock.held";

/// A frozen subtree.
#[derive(Debug)]
pub struct Hold {
    guard: Arc<Guard>,
    dir: PathBuf,
    writes: OwnedFd,
}

impl Hold {
    /// Freezes `cgroup`; `None` when that is not to be done: we are in it ourselves, or somebody else
    /// has frozen it, whose decision it is to let go.
    ///
    /// # Errors
    /// The guard is gone or the kernel refuses.
    pub fn freeze(guard: &Arc<Guard>, cgroup: &Cgroup) -> Result<Option<Self>> {
        if own_cgroup().is_none_or(|own| own.starts_with(&cgroup.path)) {
            return Ok(None);
        }
        let dir = &cgroup.dir;
        let file = file(dir);
        let cannot = || format!("cannot freeze cgroup {}", display(&cgroup.path));
        if fs::read_to_string(&file).with_context(cannot)?.trim() != "0" {
            return Ok(None);
        }
        let writes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        let writes = writes.with_context(cannot)?;
        inotify::add_watch(&writes, &file, inotify::WatchFlags::MODIFY).with_context(cannot)?;
        guard.holds(dir)?;
        let hold = Self { guard: Arc::clone(guard), dir: dir.clone(), writes };
        rustix::fs::setxattr(dir, MARK, b"", XattrFlags::empty()).with_context(cannot)?;
        fs::write(&file, "1").with_context(cannot)?;
        // Our own.
        hold.was_written();
        Ok(Some(hold))
    }

    /// Whether `cgroup.freeze` was written to since this was asked last.
    fn was_written(&self) -> bool {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        let mut reader = inotify::Reader::new(&self.writes, &mut buffer);
        std::iter::from_fn(|| reader.next().ok().map(drop)).count() > 0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // What it says is theirs then.
        if self.was_written() {
            let _ = rustix::fs::removexattr(&self.dir, MARK);
        } else {
            thaw(&self.dir);
        }
        self.guard.released(&self.dir);
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("cgroup.freeze")
}

/// Lets go of a cgroup if it is held by us. Where it is gone there is nothing to let go.
pub(super) fn thaw(dir: &Path) {
    if rustix::fs::getxattr(dir, MARK, &mut [0_u8; 0][..]).is_ok() {
        let _ = fs::write(file(dir), "0");
        let _ = rustix::fs::removexattr(dir, MARK);
    }
}

/// Lets go of what a daemon held that was killed together with its guard.
pub fn thaw_left(engine: &Engine, mount: &CgroupMount) {
    for counter in engine.counters().values() {
        if let ById::Found(cgroup) = mount.cgroup_of(counter.id) {
            thaw(&cgroup.dir);
        }
    }
}
