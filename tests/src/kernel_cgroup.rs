//! Cgroups of the kernel's own memory controller, for comparison with memstock.
//!
//! A hybrid host has that controller on a v1 hierarchy, so a task can be in one of these and in a cgroup of
//! [`crate::cgroup`] at once. Where the v2 hierarchy has it, the two are the same. `Drop` removes a cgroup that was
//! made here, but kills nothing: the tasks belong to the cgroup of [`crate::cgroup`].

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::PAGE;
use crate::cgroup::{TestCgroup, fresh_path, mount, mount_v1_memory};
use crate::poll::{SOON, poll_until};

/// The reason of a test that skips because [`KernelCgroup::new`] returned `None`.
pub const ABSENT: &str =
    "no memory controller of the kernel's is mounted, so there is nothing to compare with";

/// The version of the controller: its files have different names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A cgroup in which the kernel accounts memory.
#[derive(Debug)]
pub struct KernelCgroup {
    dir: PathBuf,
    path: String,
    version: Version,
    /// Whether it is ours to remove.
    made: bool,
}

/// Why a test of page cache at the kernel's limit is skipped if [`kills_for_dirty_pages`].
pub const KILLS_FOR_DIRTY_PAGES: &str =
    "this kernel kills for dirty pages: MGLRU, with a slow disk";

/// Whether the kernel may kill at a limit rather than wait for writeback, as MGLRU did on Linux 6.12, 6.18 and 7.3.
pub fn kills_for_dirty_pages() -> bool {
    let enabled = fs::read_to_string("/sys/kernel/mm/lru_gen/enabled");
    enabled.is_ok_and(|enabled| enabled.trim() != "0x0000")
}

impl KernelCgroup {
    /// Makes a cgroup with a new name below the root; `None` if the host has no such hierarchy.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Option<Self>> {
        Self::at(fresh_path())
    }

    /// As [`Self::new`], with this name, which must be unused.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn named(name: &str) -> Result<Option<Self>> {
        Self::at(format!("/{name}"))
    }

    fn at(path: String) -> Result<Option<Self>> {
        if let Some(mount) = mount_v1_memory()? {
            return Self::make(mount.join(&path[1..]), path, Version::V1).map(Some);
        }
        let mount = mount()?;
        let controllers = fs::read_to_string(mount.join("cgroup.subtree_control"))?;
        let has_memory = controllers.split_whitespace().any(|name| name == "memory");
        has_memory.then(|| Self::make(mount.join(&path[1..]), path, Version::V2)).transpose()
    }

    /// The kernel's cgroup for the tasks of `cgroup`: `cgroup` itself if v2 has the memory controller, else a new v1
    /// cgroup; `None` if the host has neither.
    ///
    /// On v2 the controller is off below it, so that tasks may be at every level, until [`Self::child`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn beside(cgroup: &TestCgroup) -> Result<Option<Self>> {
        if !cgroup.dir().join("memory.current").exists() {
            return Self::new().map(|kernel| kernel.filter(|kernel| kernel.version == Version::V1));
        }
        let (dir, path) = (cgroup.dir().to_owned(), cgroup.path().to_owned());
        Ok(Some(Self { dir, path, version: Version::V2, made: false }))
    }

    /// As [`Self::beside`], but a v1 cgroup gets the same path as `cgroup`, so that memstock finds it by itself.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn pair_of(cgroup: &TestCgroup) -> Result<Option<Self>> {
        if cgroup.dir().join("memory.current").exists() {
            return Self::beside(cgroup);
        }
        let kernel = Self::at(cgroup.path().to_owned())?;
        Ok(kernel.filter(|kernel| kernel.version == Version::V1))
    }

    /// A child of this cgroup, which is removed with it at the latest. On v1 it is made. On v2 it must exist, and this
    /// cgroup can have no tasks from then on.
    ///
    /// # Errors
    /// When it cannot be made, or is not there.
    pub fn child(&self, name: &str) -> Result<Self> {
        let (dir, path) = (self.dir.join(name), format!("{}/{name}", self.path));
        if self.version == Version::V1 {
            return Self::make(dir, path, Version::V1);
        }
        let control = self.dir.join("cgroup.subtree_control");
        fs::write(&control, "+memory").with_context(|| control.display().to_string())?;
        fs::metadata(dir.join("memory.current")).with_context(|| dir.display().to_string())?;
        Ok(Self { dir, path, version: Version::V2, made: false })
    }

    fn make(dir: PathBuf, path: String, version: Version) -> Result<Self> {
        fs::create_dir(&dir).with_context(|| format!("making the cgroup {}", dir.display()))?;
        Ok(Self { dir, path, version, made: true })
    }

    /// The path in the hierarchy.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is in the same hierarchy as memstock's.
    pub fn is_v2(&self) -> bool {
        self.version == Version::V2
    }

    /// Its argument for `--kernel-cgroup`: a path in the v1 hierarchy, or a folder.
    pub fn argument(&self) -> String {
        match self.version {
            Version::V1 => self.path.clone(),
            Version::V2 => self.dir.display().to_string(),
        }
    }

    fn file<'a>(&self, v1: &'a str, v2: &'a str) -> &'a str {
        match self.version {
            Version::V1 => v1,
            Version::V2 => v2,
        }
    }

    /// Sets or removes its limit. The kernel reclaims what is above it.
    ///
    /// # Errors
    /// When it is gone, or not enough can be reclaimed.
    pub fn limit(&self, nr_pages: Option<u64>) -> Result<()> {
        let none = self.file("-1", "max").to_owned();
        let limit = nr_pages.map_or(none, |pages| (pages * PAGE).to_string());
        let file = self.dir.join(self.file("memory.limit_in_bytes", "memory.max"));
        fs::write(&file, limit).with_context(|| file.display().to_string())
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

    /// Pages charged to it and its descendants now: user and kernel pages, and the pages that
    /// the kernel has in stock for it, up to 64 per CPU.
    ///
    /// # Errors
    /// When it is gone.
    pub fn usage_pages(&self) -> Result<u64> {
        self.pages(self.file("memory.usage_in_bytes", "memory.current"))
    }

    /// The highest usage so far.
    ///
    /// # Errors
    /// When it is gone.
    pub fn peak_pages(&self) -> Result<u64> {
        self.pages(self.file("memory.max_usage_in_bytes", "memory.peak"))
    }

    /// How often a charge met the limit.
    ///
    /// # Errors
    /// When it is gone.
    pub fn limit_hits(&self) -> Result<u64> {
        match self.version {
            Version::V1 => self.number("memory.failcnt"),
            Version::V2 => self.entry("memory.events", "max"),
        }
    }

    /// How many of its tasks the kernel's OOM killer has killed.
    ///
    /// # Errors
    /// When it is gone.
    pub fn oom_kills(&self) -> Result<u64> {
        self.entry(self.file("memory.oom_control", "memory.events"), "oom_kill")
    }

    /// The ids of the processes in it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn tasks(&self) -> Result<Vec<u32>> {
        let text = self.read("cgroup.procs")?;
        text.lines()
            .map(|id| id.parse().with_context(|| format!("{id} is not a process id")))
            .collect()
    }

    /// The part of [`Self::usage_pages`] that is kernel memory: page tables, slab, stacks, pipes. Slab counts in whole
    /// pages, and stocked pages are included.
    ///
    /// # Errors
    /// When it is gone.
    pub fn kmem_pages(&self) -> Result<u64> {
        match self.version {
            Version::V1 => self.pages("memory.kmem.usage_in_bytes"),
            Version::V2 => self.figure("kernel"),
        }
    }

    /// Private mapped memory, in pages; without descendants on v1.
    ///
    /// The kernel's figure lags by up to 2 s and 128 pages per CPU: it adds up the CPUs' counts every 2 s, or when a
    /// count is large enough. Poll, or use [`crate::kpages`], which is always exact.
    ///
    /// # Errors
    /// When it is gone.
    pub fn anonymous_pages(&self) -> Result<u64> {
        self.figure(self.file("rss", "anon"))
    }

    /// Page cache and shared memory, in pages; lags like [`Self::anonymous_pages`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn cache_pages(&self) -> Result<u64> {
        self.figure(self.file("cache", "file"))
    }

    /// Page cache without shared memory, in pages; lags like [`Self::anonymous_pages`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn file_pages(&self) -> Result<u64> {
        Ok(self.cache_pages()?.saturating_sub(self.figure("shmem")?))
    }

    /// The total of v2's `memory.stat`, in pages: private memory, page cache, kernel memory and sockets; lags like
    /// [`Self::anonymous_pages`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn accounted_pages(&self) -> Result<u64> {
        ["anon", "file", "kernel", "sock"].iter().map(|name| self.figure(name)).sum()
    }

    /// A figure of `memory.stat`, in pages.
    fn figure(&self, name: &str) -> Result<u64> {
        Ok(self.entry("memory.stat", name)? / PAGE)
    }

    /// The value of `name` in a file of `NAME VALUE` lines.
    fn entry(&self, file: &str, name: &str) -> Result<u64> {
        let text = self.read(file)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.with_context(|| format!("no {name} in {file} of {}", self.path))?;
        value.parse().with_context(|| format!("{name} is {value}"))
    }

    /// Makes the kernel reclaim what it can: clean page cache, which would otherwise stay charged after
    /// the last task has ended.
    ///
    /// # Errors
    /// On v1, when it has a task or a child.
    pub fn force_empty(&self) -> Result<()> {
        let file = self.dir.join(self.file("memory.force_empty", "memory.reclaim"));
        match fs::write(&file, self.file("0", "1G")) {
            // v2 reports that there was less than 1 GiB to reclaim, which is fine.
            Err(error) if self.is_v2() && error.kind() == ErrorKind::WouldBlock => Ok(()),
            done => done.with_context(|| file.display().to_string()),
        }
    }

    fn pages(&self, file: &str) -> Result<u64> {
        Ok(self.number(file)? / PAGE)
    }

    fn number(&self, file: &str) -> Result<u64> {
        let text = self.read(file)?;
        text.trim().parse().with_context(|| format!("{file} is {text:?}"))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.dir.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}

impl Drop for KernelCgroup {
    fn drop(&mut self) {
        if self.made {
            remove(&self.dir);
        }
    }
}

/// Removes the cgroup and those below it, moving their tasks to its parent. Prints an error if it cannot.
pub fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let what = format!("the end of the cgroup {}", dir.display());
    let gone = poll_until(SOON, &what, || {
        // On each try, since a task may fork while it is moved.
        move_up(dir);
        match fs::remove_dir(dir) {
            Ok(()) => Some(()),
            Err(error) => (error.kind() == ErrorKind::NotFound).then_some(()),
        }
    });
    if let Err(error) = gone {
        eprintln!("{error:#}");
    }
}

/// Moves the tasks of a cgroup into its parent. Ignores those that have ended meanwhile.
fn move_up(dir: &Path) {
    let Some(above) = dir.parent() else {
        return;
    };
    let tasks = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for task in tasks.lines() {
        let _ = fs::write(above.join("cgroup.procs"), task);
    }
}
