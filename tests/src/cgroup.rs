//! cgroups for a test: made under the cgroup v2 mount, gone with everything in them on `Drop`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context, Result};

use crate::poll::{SOON, poll_until};

/// What the names of test cgroups begin with.
pub const PREFIX: &str = "memstock-test-";
/// The cgroup of a bench.
pub const OF_BENCH: &str = "memstock-bench";

/// Where cgroup v2 is mounted. On a hybrid host that is not `/sys/fs/cgroup`.
///
/// # Errors
/// When it is not mounted.
pub fn mount() -> Result<PathBuf> {
    mounted("cgroup2", "")?.context("no cgroup v2 hierarchy is mounted")
}

/// The mount point of the v1 memory controller, where there is one.
///
/// # Errors
/// When the mounts cannot be read.
pub fn mount_v1_memory() -> Result<Option<PathBuf>> {
    mounted("cgroup", "memory")
}

/// The first mount of type `kind` that has the super-block option `option`, if that is not empty.
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

/// The path of a cgroup that is not there yet, right below the root of any hierarchy.
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

    /// Makes a cgroup with this name, which nobody else has, below the root: where people see it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn named(name: &str) -> Result<Self> {
        Self::make(mount()?.join(name), format!("/{name}"))
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

    /// Removes it with everything in it, and makes one with the same name.
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

/// Removes what an interrupted bench has left: its cgroup and those below, if nobody is in them.
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
        // One that is not there, or is in use, is not a bench's that has ended.
        let _ = fs::remove_dir(dir);
    }
    remove_empty(&mount()?.join(OF_BENCH));
    Ok(())
}

/// Kills what is in the cgroup and those below it, and removes them all. Says so if it cannot.
pub fn remove(dir: &Path) {
    // A task that was killed keeps its cgroup busy until it has exited, hence the polling.
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
