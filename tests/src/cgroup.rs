//! Cgroups for tests, made under the cgroup v2 mount and removed with everything in them on `Drop`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context, Result};

use crate::poll::{SOON, poll_until};

/// Prefix of the names of test cgroups.
pub const PREFIX: &str = "memstock-test-";
/// The name of a bench's cgroup.
pub const OF_BENCH: &str = "memstock-bench";

/// Where cgroup v2 is mounted. On a hybrid host that is not `/sys/fs/cgroup`.
///
/// # Errors
/// When it is not mounted.
pub fn mount() -> Result<PathBuf> {
    mounted("cgroup2", "")?.context("no cgroup v2 hierarchy is mounted")
}

/// The mount point of the v1 memory controller, if it is mounted.
///
/// # Errors
/// When the mounts cannot be read.
pub fn mount_v1_memory() -> Result<Option<PathBuf>> {
    mounted("cgroup", "memory")
}

/// The first mount of type `kind` with the super-block option `option` (any, if that is empty).
fn mounted(kind: &str, option: &str) -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    Ok(mounts.lines().find_map(|line| {
        // proc_pid_mountinfo(5): "id parent major:minor root mount-point … - type source options".
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = file_system.split(' ');
        let found = fields.next()? == kind
            && (option.is_empty() || fields.nth(1)?.split(',').any(|given| given == option));
        found.then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
    }))
}

/// An unused path for a cgroup right below the root of any hierarchy.
pub(crate) fn fresh_path() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Relaxed);
    format!("/{PREFIX}{}-{number}", std::process::id())
}

/// A cgroup of a test.
#[derive(Debug)]
pub struct TestCgroup {
    dir: PathBuf,
    path: String,
}

impl TestCgroup {
    /// Makes a cgroup with a new name below the root.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        let path = fresh_path();
        let dir = mount()?.join(&path[1..]);
        Self::make(dir, path)
    }

    /// Makes a cgroup with this name, which must be unused, below the root: for names that people see.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn named(name: &str) -> Result<Self> {
        Self::make(mount()?.join(name), format!("/{name}"))
    }

    /// Makes a child cgroup, which is removed with this one at the latest.
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

    /// Removes the cgroup with everything in it, and makes another with the same name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn again(self) -> Result<Self> {
        let (dir, path) = (self.dir.clone(), self.path.clone());
        drop(self);
        Self::make(dir, path)
    }

    /// The path in the hierarchy, such as `/memstock-test-1-2`: its name in JSON.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The folder in the file system.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Removes the cgroup that an interrupted bench left, and those below it, if no task is in them.
///
/// # Errors
/// When the cgroup v2 mount is not found.
pub fn remove_of_bench() -> Result<()> {
    fn remove_empty(dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_empty(&entry.path());
            }
        }
        // It fails if there is none, or if it is in use: then its bench has not ended.
        let _ = fs::remove_dir(dir);
    }
    remove_empty(&mount()?.join(OF_BENCH));
    Ok(())
}

/// Kills all tasks in the cgroup and below it, and removes the cgroups. Prints an error if it cannot.
pub fn remove(dir: &Path) {
    // Polls, since a killed task keeps its cgroup busy until it has exited.
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let what = format!("the end of the cgroup {}", dir.display());
    let gone = poll_until(SOON, &what, || match fs::remove_dir(dir) {
        Ok(()) => Some(()),
        Err(error) => (error.kind() == std::io::ErrorKind::NotFound).then_some(()),
    });
    if let Err(error) = gone {
        eprintln!("{error:#}");
    }
}
