//! Owns the hierarchy of the kernel's memory controller: where it is mounted, which cgroups are in it, and what is
//! charged to them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{MEMORY_FILES, directories, has_memory, mounts};
use crate::exit::Failure;
use crate::host::cgroup::{display, names};
use crate::host::page_size;
use crate::host::process::memory_hierarchy;

/// The hierarchy, cgroup v1 or v2.
#[derive(Debug)]
pub struct MemoryTree {
    dir: PathBuf,
    /// Its number; 0 for cgroup v2.
    pub hierarchy: u32,
}

/// A memory cgroup.
#[derive(Debug)]
pub struct InTree {
    /// Its path in the hierarchy: `/a/b`.
    pub path: PathBuf,
    /// Its id in the hierarchy, which is its directory's inode.
    pub id: u64,
}

impl MemoryTree {
    /// Finds where it is mounted.
    ///
    /// # Errors
    /// [`Failure::Host`] if the kernel has no memory controller, or its hierarchy is not mounted as a whole.
    pub fn find() -> Result<Self> {
        let hierarchy = memory_hierarchy().context("cannot read /proc/self/cgroup")?;
        let kind = if hierarchy == 0 { "cgroup2" } else { "cgroup" };
        // The root of v2 has no usage file.
        let is_memory = |dir: &Path| match hierarchy {
            0 => fs::read_to_string(dir.join("cgroup.controllers"))
                .is_ok_and(|text| text.split_whitespace().any(|name| name == "memory")),
            _ => has_memory(dir),
        };
        let mut mounts = mounts()?.into_iter();
        let found = mounts.find(|mount| {
            mount.fs_type == kind && mount.root == Path::new("/") && is_memory(&mount.point)
        });
        let dir = found.map(|mount| mount.point).ok_or_else(|| {
            Failure::Host.error(
                "the kernel's memory controller is missing (CONFIG_MEMCG, cgroup_disable=memory), \
                 or its hierarchy is not mounted as a whole",
            )
        })?;
        Ok(Self { dir, hierarchy })
    }

    /// All cgroups that are charged separately. Those removed meanwhile are left out.
    pub fn cgroups(&self) -> Vec<InTree> {
        let in_tree = |(below, dir): (PathBuf, PathBuf)| {
            let is_root = below.as_os_str().is_empty();
            let id = fs::metadata(&dir).ok()?.ino();
            // On v2 the controller can be off below a cgroup: pages are then charged to that cgroup.
            (is_root || has_memory(&dir)).then(|| InTree { path: Path::new("/").join(below), id })
        };
        directories(&self.dir).into_iter().filter_map(in_tree).collect()
    }

    /// What is charged to the cgroup with this path and its descendants, in pages; none if it is gone.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn usage(&self, path: &Path) -> Result<Option<u64>> {
        let [v1, v2] = MEMORY_FILES;
        let file = self.dir_of(path).join(if self.hierarchy == 0 { v2 } else { v1 });
        let text = match fs::read_to_string(&file) {
            Err(error) if is_gone(&error) => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", display(&file)))?,
        };
        let bytes: u64 =
            text.trim().parse().with_context(|| format!("{} is {text:?}", display(&file)))?;
        Ok(Some(bytes / page_size()))
    }

    /// The path in the hierarchy that `path` refers to: a directory below the mount, or a path from the root.
    ///
    /// # Errors
    /// [`Failure::Cgroup`] if there is no such memory cgroup.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let inside = names(path.strip_prefix(&self.dir).unwrap_or(path))?;
        let is_root = inside.as_os_str().is_empty();
        if is_root || has_memory(&self.dir.join(&inside)) {
            return Ok(Path::new("/").join(inside));
        }
        Err(Failure::Cgroup.error(format!(
            "there is no memory cgroup {} in {}",
            display(Path::new("/").join(inside)),
            display(&self.dir)
        )))
    }

    fn dir_of(&self, path: &Path) -> PathBuf {
        self.dir.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Reading a file of a cgroup that was removed meanwhile gives ENODEV.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}
