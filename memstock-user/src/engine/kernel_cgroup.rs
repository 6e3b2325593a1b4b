//! Owns the mapping between tracked cgroups and the kernel's own memory cgroups. Must not look at pages: `scan` does
//! that, with this mapping.
//!
//! Where the v2 hierarchy has the memory controller, a cgroup is its own counterpart. Elsewhere its counterpart is the
//! v1 memory cgroup of the same path if it has the same tasks (`pair`), or one that the user names. Below the two,
//! cgroups with the same relative path belong together.

mod map;
mod pair;
mod scan;
mod tracked;
mod tree;

pub use map::{KernelMap, Verdict};
pub use scan::{PageScan, PageView};
pub use tracked::Tracked;
pub use tree::MemoryTree;

use self::pair::have_same_tasks;
use crate::exit::Failure;
use crate::host::cgroup::{CgroupMount, display, names};
use crate::host::mountinfo::{self, Mount};
use anyhow::Result;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file that each memory cgroup has: on v1, and on v2.
const MEMORY_FILES: [&str; 2] = ["memory.usage_in_bytes", "memory.current"];

/// A counterpart named by `--kernel-cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCgroup {
    /// The tracked cgroup; none for the first root.
    pub cgroup: Option<PathBuf>,
    /// The kernel's cgroup: a directory, or a path in the v1 memory hierarchy.
    pub path: PathBuf,
}

/// Tracked cgroups that the kernel's memory controller knows as well, with all their descendants.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KernelCgroups {
    trees: Vec<Tree>,
}

/// Two cgroups that are counterparts, and so are their descendants.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Tree {
    /// The path of the tracked cgroup.
    cgroup: PathBuf,
    /// The directory of the kernel's cgroup.
    dir: PathBuf,
}

impl KernelCgroups {
    /// Finds the counterparts of the top-most tracked cgroups `roots` and of their descendants: those that
    /// `--kernel-cgroup` names, and those found without it. If it names no CGROUP, the first root is meant.
    ///
    /// # Errors
    /// [`Failure::Cgroup`] if there is no such cgroup or it is not tracked, [`Failure::Host`] if the kernel has no
    /// memory controller, [`Failure::Usage`] if one is named twice.
    pub fn find(mount: &CgroupMount, named: &[KernelCgroup], roots: &[PathBuf]) -> Result<Self> {
        let mut trees = Vec::<Tree>::new();
        for named in named {
            let cgroup = tracked_cgroup(mount, named, roots)?;
            if trees.iter().any(|tree| tree.cgroup == cgroup) {
                return Err(
                    Failure::Usage.error(format!("--kernel-cgroup twice for {}", display(&cgroup)))
                );
            }
            let dir = kernel_dir(&mounts()?, &named.path)?;
            trees.push(Tree { cgroup, dir });
        }
        let mounts = mounts()?;
        for root in roots {
            if trees.iter().any(|tree| root.starts_with(&tree.cgroup)) {
                continue;
            }
            let own = dir_of(mount, root);
            let dir = if has_memory(&own) { Some(own) } else { pair_of(&mounts, root, &own) };
            trees.extend(dir.map(|dir| Tree { cgroup: root.clone(), dir }));
        }
        Ok(Self { trees })
    }

    /// Whether the kernel knows the cgroup with this path.
    pub fn knows(&self, path: &Path) -> bool {
        self.trees.iter().any(|tree| path.starts_with(&tree.cgroup))
    }

    /// The mapping at this moment.
    pub fn map(&self, tracked: &Tracked) -> KernelMap {
        let mut map = KernelMap::default();
        for tree in &self.trees {
            map.add_tree(&tree.cgroup, &memory_cgroups(&tree.dir), tracked);
        }
        map.resolve(tracked);
        map
    }
}

/// The directory of the cgroup with this path in the v2 hierarchy.
pub(crate) fn dir_of(mount: &CgroupMount, path: &Path) -> PathBuf {
    mount.dir().join(path.strip_prefix("/").unwrap_or(path))
}

/// `dir` and the directories below it, each with its path below `dir`: parents before children. Those removed meanwhile
/// are left out.
pub(crate) fn directories(dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut found = vec![(PathBuf::new(), dir.to_path_buf())];
    let mut next = 0;
    while let Some((below, dir)) = found.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push((below.join(entry.file_name()), entry.path()));
            }
        }
    }
    found
}

/// The memory cgroups at and below `dir`: the path below it, and the cgroup's number in `/proc/kpagecgroup`, which is
/// the directory's inode number.
fn memory_cgroups(dir: &Path) -> Vec<(PathBuf, u64)> {
    directories(dir)
        .into_iter()
        // On v2 the controller can be off below a cgroup: pages are then charged to that cgroup.
        .filter(|(_, dir)| has_memory(dir))
        .filter_map(|(below, dir)| Some((below, fs::metadata(dir).ok()?.ino())))
        .collect()
}

fn has_memory(dir: &Path) -> bool {
    MEMORY_FILES.iter().any(|file| dir.join(file).exists())
}

fn tracked_cgroup(mount: &CgroupMount, named: &KernelCgroup, roots: &[PathBuf]) -> Result<PathBuf> {
    let Some(cgroup) = &named.cgroup else {
        return roots.first().cloned().ok_or_else(|| {
            Failure::Cgroup.error("--kernel-cgroup: no cgroup is tracked that it could belong to")
        });
    };
    let path = mount.resolve(cgroup)?.path;
    if roots.iter().any(|root| path.starts_with(root)) {
        return Ok(path);
    }
    Err(Failure::Cgroup
        .error(format!("--kernel-cgroup for {}, which is not tracked", display(&path))))
}

fn mounts() -> Result<Vec<Mount>> {
    let all = mountinfo::read()?.into_iter();
    Ok(all.filter(|mount| mount.fs_type.starts_with("cgroup")).collect())
}

/// Where the v1 memory hierarchy is mounted, if it is.
///
/// # Errors
/// The mounts cannot be read.
pub fn v1_memory() -> Result<Option<PathBuf>> {
    Ok(v1_memory_of(&mounts()?).map(|mount| mount.point.clone()))
}

fn v1_memory_of(mounts: &[Mount]) -> Option<&Mount> {
    mounts.iter().find(|m| m.fs_type == "cgroup" && has_memory(&m.point))
}

/// The v1 memory cgroup with the path and the tasks of the cgroup `own`.
fn pair_of(mounts: &[Mount], path: &Path, own: &Path) -> Option<PathBuf> {
    let memory = v1_memory_of(mounts).filter(|mount| mount.root == Path::new("/"))?;
    let dir = memory.point.join(path.strip_prefix("/").unwrap_or(path));
    (has_memory(&dir) && have_same_tasks(path, [own, &dir])).then_some(dir)
}

/// The directory that `path` refers to: one below a cgroup mount, or a path in the v1 memory hierarchy.
fn kernel_dir(mounts: &[Mount], path: &Path) -> Result<PathBuf> {
    let memory = v1_memory_of(mounts);
    let is_dir = path.is_absolute() && mounts.iter().any(|m| path.starts_with(&m.point));
    let dir = match (is_dir, memory) {
        (true, _) => path.to_path_buf(),
        (false, Some(memory)) => memory.point.join(names(path)?),
        (false, None) => {
            return Err(Failure::Host.error(
                "--kernel-cgroup: no v1 memory controller is mounted; where cgroup v2 has it, \
                 memstock finds the kernel's cgroup without being told",
            ));
        }
    };
    if !dir.is_dir() {
        return Err(Failure::Cgroup.error(format!("there is no cgroup {}", display(&dir))));
    }
    if !has_memory(&dir) {
        return Err(Failure::Cgroup.error(format!(
            "{} is not a memory cgroup of the kernel's: it has no {}",
            display(&dir),
            MEMORY_FILES.join(" or ")
        )));
    }
    // Comparing paths ignores a trailing slash.
    if mounts.iter().any(|m| m.root == Path::new("/") && m.point == dir) {
        return Err(Failure::Cgroup.error(format!(
            "{} is the root cgroup, which has the pages of everybody: name one below it",
            display(&dir)
        )));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests;
