//! Owns a cgroup that memstock makes for itself (`--new NAME`), from creation to removal. Must not touch any cgroup but
//! that one and those below it; tasks are moved to its parent and nowhere else.

use super::{Cgroup, CgroupMount, display, open_cgroup_dir};
use crate::exit::Failure;
use anyhow::{Context as _, Result};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a cgroup may stay busy, with tasks that fork while they are moved or that are exiting.
const REMOVE: Duration = Duration::from_secs(1);

/// A cgroup that we made; removed on drop.
#[derive(Debug)]
pub struct OwnedCgroup {
    cgroup: Cgroup,
    parent: PathBuf,
    /// All work goes through this descriptor, so that a cgroup of the same name made after ours was removed is never
    /// mistaken for it. `None` once removed.
    root: Option<OwnedFd>,
}

impl CgroupMount {
    /// Creates the cgroup `name`, below the root of the hierarchy or below an existing cgroup.
    ///
    /// # Errors
    ///
    /// [`Failure::Cgroup`] when the name is not possible, the cgroup exists, or its parent does not.
    pub fn create(&self, name: impl AsRef<Path>) -> Result<OwnedCgroup> {
        let name = name.as_ref();
        let refuse = |what: &str| Failure::Cgroup.error(format!("{}: {what}", display(name)));
        let inside = self.inside(name)?;
        if inside.as_os_str().is_empty() {
            return Err(refuse("this is the root cgroup: give the new cgroup a name"));
        }
        let dir = self.dir.join(&inside);
        let parent = dir.parent().unwrap_or(&self.dir).to_path_buf();
        fs::create_dir(&dir).map_err(|error| match error.raw_os_error() {
            Some(libc::EEXIST) if dir.is_dir() => {
                refuse("the cgroup exists already: choose another name, or track it as it is")
            }
            Some(libc::EEXIST) => refuse("this is the name of a control file: choose another one"),
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV) => {
                refuse("the parent cgroup does not exist: create it first with mkdir")
            }
            Some(libc::EINVAL) => refuse("the kernel refuses this name: choose another one"),
            Some(libc::EAGAIN) => refuse(
                "too many or too deep: see cgroup.max.descendants and cgroup.max.depth of its ancestors",
            ),
            _ => refuse(&format!("cannot create the cgroup: {error}")),
        })?;
        self.own(&inside, parent).inspect_err(|_| {
            // It is empty and a moment old; nobody else can be in it.
            let _ = fs::remove_dir(&dir);
        })
    }

    /// Removes the cgroup `id` that a dead engine left behind; its tasks are moved to its parent. No error if it is
    /// gone.
    ///
    /// # Errors
    ///
    /// [`Failure::Cgroup`] when it stays busy, or is the root.
    pub fn remove_left_behind(&self, id: u64) -> Result<()> {
        let Some(path) = self.path_of(id) else { return Ok(()) };
        let inside = path.strip_prefix("/").unwrap_or(&path);
        if inside.as_os_str().is_empty() {
            return Err(Failure::Cgroup.error("the root cgroup was not made by an engine"));
        }
        let dir = self.dir.join(inside);
        self.own(inside, dir.parent().unwrap_or(&self.dir).to_path_buf())?.remove()
    }

    /// Removes the cgroup with this path if a dead engine that was about to make it got that far: it has no tasks and
    /// no children.
    pub fn remove_unused(&self, path: &Path) {
        if let Ok(cgroup) = self.resolve(path)
            && let Err(error) = fs::remove_dir(&cgroup.dir)
        {
            log::info!("cgroup {} is not ours: {error}", display(path));
        }
    }

    fn own(&self, inside: &Path, parent: PathBuf) -> Result<OwnedCgroup> {
        let cgroup = self.cgroup(inside)?;
        let root = open_cgroup_dir(&cgroup.dir)
            .with_context(|| format!("cannot open cgroup {}", display(&cgroup.path)))?;
        Ok(OwnedCgroup { cgroup, parent, root: Some(root) })
    }
}

impl OwnedCgroup {
    /// The cgroup itself.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Moves its tasks, and those of cgroups made below it since, to its parent, and removes all these cgroups. Blocks
    /// for up to a second. No error if somebody has removed it already.
    ///
    /// # Errors
    ///
    /// [`Failure::Cgroup`] when it is still busy after that; it is then left as it is.
    pub fn remove(mut self) -> Result<()> {
        self.remove_all()
    }

    fn remove_all(&mut self) -> Result<()> {
        // Taken, so that drop does not try again what fails and is reported here.
        let Some(root) = self.root.take() else { return Ok(()) };
        self.remove_below(&PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())))
    }

    fn remove_below(&self, root: &Path) -> Result<()> {
        let mut moved = Vec::new();
        let removed = retry_while_busy(|| self.try_remove(root, &mut moved));
        warn_of(&moved, &self.cgroup.dir, &self.parent);
        removed.map_err(|error| {
            Failure::Cgroup.error(format!(
                "cannot remove cgroup {}: {error}: move its tasks away, then use rmdir",
                display(&self.cgroup.path)
            ))
        })
    }

    fn try_remove(&self, root: &Path, moved: &mut Vec<String>) -> io::Result<()> {
        empty(root, &self.parent, moved)?;
        // The top one is removed by its name in its parent, which must still be ours.
        match open_cgroup_dir(&self.cgroup.dir).and_then(|dir| super::handle::id(&dir)) {
            Ok(id) if id == self.cgroup.id => ok_if_gone(fs::remove_dir(&self.cgroup.dir)),
            Ok(_) => Ok(()),
            error => ok_if_gone(error.map(|_| ())),
        }
    }
}

impl Drop for OwnedCgroup {
    fn drop(&mut self) {
        if let Err(error) = self.remove_all() {
            log::warn!("{error:#}");
        }
    }
}

/// Retries for up to a second: a cgroup stays busy while its tasks are exiting.
pub(in crate::host) fn retry_while_busy(
    mut attempt: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let deadline = Instant::now() + REMOVE;
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => sleep(pause),
            outcome => return outcome,
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Warns that processes which were moved run on.
pub(in crate::host) fn warn_of(moved: &[String], from: &Path, to: &Path) {
    // One that is ending has no program any more.
    let runs = |pid: &&String| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    let processes = match moved.iter().filter(runs).count() {
        0 => return,
        1 => "1 process runs".to_owned(),
        more => format!("{more} processes run"),
    };
    log::warn!("{processes} on in {}: {} was removed", display(to), display(from));
}

/// Moves the tasks of a cgroup and of all below it to `parent`, and removes the ones below. Adds to `moved` whom it has
/// moved.
pub(in crate::host) fn empty(
    root: &Path,
    parent: &Path,
    moved: &mut Vec<String>,
) -> io::Result<()> {
    // Parents come before children in the list.
    let all = subtree(root)?;
    for dir in &all {
        ok_if_gone(move_tasks(dir, parent, moved))?;
    }
    for dir in all.iter().skip(1).rev() {
        ok_if_gone(fs::remove_dir(dir))?;
    }
    Ok(())
}

/// If a pid is reused between the two system calls, the wrong process is moved; the kernel takes only numbers here.
fn move_tasks(dir: &Path, parent: &Path, moved: &mut Vec<String>) -> io::Result<()> {
    // A threaded cgroup lists its threads only; the domain above it lists their processes.
    let (file, tasks) = match fs::read_to_string(dir.join("cgroup.procs")) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            ("cgroup.threads", fs::read_to_string(dir.join("cgroup.threads"))?)
        }
        tasks => ("cgroup.procs", tasks?),
    };
    for task in tasks.lines() {
        // A task of another PID namespace reads as 0, and writing 0 would move ourselves.
        if task == "0" {
            return Err(io::Error::other("a task of another PID namespace is in it"));
        }
        match fs::write(parent.join(file), task) {
            // It ended by itself.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            outcome => {
                outcome?;
                moved.push(task.to_owned());
            }
        }
    }
    Ok(())
}

pub(in crate::host) fn ok_if_gone(result: io::Result<()>) -> io::Result<()> {
    found(result).map(|_| ())
}

/// `root` and all cgroups below it, each before its children. Not recursive: its tasks decide how deep it is.
fn subtree(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = vec![root.to_path_buf()];
    let mut next = 0;
    while let Some(dir) = all.get(next) {
        // None if removed meanwhile: then nothing is below it either.
        if let Some(entries) = found(fs::read_dir(dir))? {
            let mut children = Vec::new();
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    children.push(entry.path());
                }
            }
            all.append(&mut children);
        }
        next += 1;
    }
    Ok(all)
}

/// None if it is gone.
pub(super) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_goes_and_we_ourselves_are_not_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (root, parent) = (dir.path().join("made"), dir.path());
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(root.join("c")).unwrap();
        empty(&root, parent, &mut Vec::new()).unwrap();
        assert_eq!(subtree(&root).unwrap(), std::slice::from_ref(&root));
        fs::write(root.join("cgroup.procs"), "0\n").unwrap();
        assert!(empty(&root, parent, &mut Vec::new()).is_err());
        assert!(!parent.join("cgroup.procs").exists());
    }
}
