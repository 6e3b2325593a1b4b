//! cgroups of the kernel's own memory controller (v1), for a test to compare memstock with.
//!
//! A hybrid host has it on a hierarchy of its own, so a task can be in one of these and in a cgroup
//! of [`crate::cgroup`] at once. They are gone on `Drop`; whose tasks are in them is the other
//! one's affair: nothing here kills.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::PAGE;
use crate::cgroup::{fresh_path, mount_v1_memory};
use crate::poll::{SOON, poll_until};

/// The reason of a test that skips because [`KernelCgroup::new`] gave none.
pub const ABSENT: &str = "no v1 memory controller is mounted, so there is nothing to compare with";

/// A cgroup in which the kernel accounts memory.
#[derive(Debug)]
pub struct KernelCgroup {
    dir: PathBuf,
    path: String,
}

impl KernelCgroup {
    /// Makes a cgroup with a new name below the root; none where the host has no such hierarchy.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Option<Self>> {
        let Some(mount) = mount_v1_memory()? else {
            return Ok(None);
        };
        let path = fresh_path();
        Self::make(mount.join(&path[1..]), path).map(Some)
    }

    /// Makes a cgroup right below this one, which goes with this one at the latest.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.dir.join(name), format!("{}/{name}", self.path))
    }

    fn make(dir: PathBuf, path: String) -> Result<Self> {
        fs::create_dir(&dir).with_context(|| format!("making the cgroup {}", dir.display()))?;
        Ok(Self { dir, path })
    }

    /// The path in the hierarchy.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The folder in the file system.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number by which `/proc/kpagecgroup` names it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn inode(&self) -> Result<u64> {
        Ok(fs::metadata(&self.dir).with_context(|| self.dir.display().to_string())?.ino())
    }

    /// What it is charged now, its descendants included: user and kernel pages, and the pages that
    /// the kernel has in stock for it, up to 64 a CPU.
    ///
    /// # Errors
    /// When it is gone.
    pub fn usage_pages(&self) -> Result<u64> {
        self.pages("memory.usage_in_bytes")
    }

    /// The part of [`Self::usage_pages`] that is the kernel's own memory: page tables, slab,
    /// stacks, pipes. Rounded up to the pages that slab objects come from, and with stock too.
    ///
    /// # Errors
    /// When it is gone.
    pub fn kmem_pages(&self) -> Result<u64> {
        self.pages("memory.kmem.usage_in_bytes")
    }

    /// A figure of `memory.stat` in pages, such as `rss`, `cache`, `shmem` or `mapped_file`;
    /// without descendants unless its name begins with `total_`.
    ///
    /// The kernel is up to 2 s late with these, by up to 128 pages a CPU: it adds up what the CPUs
    /// have counted when enough has come together, and every 2 s. Poll; or ask [`crate::kpages`],
    /// which is exact at once.
    ///
    /// # Errors
    /// When it is gone, or there is no such figure.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let text = self.read("memory.stat")?;
        let bytes = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let bytes = bytes.with_context(|| format!("no {name} in {}", self.path))?;
        Ok(bytes.parse::<u64>().with_context(|| format!("{name} is {bytes}"))? / PAGE)
    }

    /// Has the kernel drop what it can: clean page cache, which would stay charged otherwise after
    /// the last task has gone.
    ///
    /// # Errors
    /// When a task is left in it, or it has children.
    pub fn force_empty(&self) -> Result<()> {
        let file = self.dir.join("memory.force_empty");
        fs::write(&file, "0").with_context(|| file.display().to_string())
    }

    fn pages(&self, file: &str) -> Result<u64> {
        let text = self.read(file)?;
        Ok(text.trim().parse::<u64>().with_context(|| format!("{file} is {text:?}"))? / PAGE)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.dir.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}

impl Drop for KernelCgroup {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Removes the cgroup and those below it; what is in them goes up to the one above. Says so if it
/// cannot.
pub fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let what = format!("the end of the cgroup {}", dir.display());
    let gone = poll_until(SOON, &what, || {
        // Again each time: what is in it may fork on its way out.
        move_up(dir);
        match fs::remove_dir(dir) {
            Ok(()) => Some(()),
            Err(error) => (error.kind() == std::io::ErrorKind::NotFound).then_some(()),
        }
    });
    if let Err(error) = gone {
        eprintln!("{error:#}");
    }
}

/// Moves the tasks of a cgroup into the one above. One that has ended in between does not mind.
fn move_up(dir: &Path) {
    let Some(above) = dir.parent() else {
        return;
    };
    let tasks = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for task in tasks.lines() {
        let _ = fs::write(above.join("cgroup.procs"), task);
    }
}
