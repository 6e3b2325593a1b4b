//! Owns where the cgroup v2 hierarchy is mounted, what a PATH on the command line means in it, and the ids of cgroups.
//! Only `owned` changes anything, and only in cgroups that memstock made; nothing here knows what is charged.
//!
//! Names of cgroups are bytes without `/`, NUL and newline, and need not be UTF-8. A cgroup is named by its path in the
//! hierarchy, `/a/b`, wherever that is mounted.

mod empty;
mod frozen;
mod handle;
mod namespace;
mod owned;
mod path;
mod pressure;
mod threaded;

pub use namespace::join_host_namespace;
pub use owned::OwnedCgroup;
use owned::found;
pub(in crate::host) use owned::{empty, ok_if_gone, retry_while_busy, warn_of};
pub(crate) use path::names;
pub use path::{display, hex_unless_plain};
pub use pressure::{Pressure, Stall};

use crate::exit::{Classify as _, Failure};
use crate::host::mountinfo::{self, Mount};
use anyhow::{Result, ensure};
use rustix::fs::{FileType, Mode, OFlags, RawDir, fstatfs, open, readlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// `statfs` type of cgroup v2 (`linux/magic.h`).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// A cgroup of the v2 hierarchy, as of when it was looked up.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Cgroup {
    /// Its path in the hierarchy: `/a/b`.
    pub path: PathBuf,
    /// Its directory, below the mount.
    pub dir: PathBuf,
    /// Its cgroup v2 id, as `bpf_get_current_cgroup_id` gives it.
    pub id: u64,
}

impl Cgroup {
    /// Opens its `cgroup.procs` for writing: a task that writes "0" to it joins.
    ///
    /// # Errors
    /// When the cgroup is gone or frozen, or we may not write to it.
    pub fn procs(&self) -> Result<File> {
        let procs = File::options().write(true).open(self.dir.join("cgroup.procs"));
        let cannot = || format!("cannot open cgroup.procs of cgroup {}", display(&self.path));
        // A task that joins it to run COMMAND would sleep, and is waited for.
        if let Some(frozen) = frozen::frozen(&self.dir) {
            let what =
                format!("cgroup {} is frozen: write 0 to its cgroup.freeze", display(&frozen));
            return Err(Failure::Cgroup.error(what));
        }
        procs.classify(Failure::Cgroup, cannot)
    }
}

/// The result of looking up a cgroup by its id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ById<T> {
    /// It exists.
    Found(T),
    /// There is none with this id, and never will be again.
    Gone,
    /// It is being created, moved or removed: ask again later.
    Unknown,
}

/// How often a cgroup is looked for before it counts as unknown.
const LOOKS: u32 = 8;

/// The mounted cgroup v2 hierarchy.
#[derive(Debug)]
pub struct CgroupMount {
    dir: PathBuf,
    /// Open, because file handles are opened through it.
    root: OwnedFd,
    /// Other mount points of the same hierarchy, from which paths may be given.
    other_mounts: Vec<PathBuf>,
    /// Mount points of v1 hierarchies, to explain what is wrong with a path.
    v1: Vec<PathBuf>,
}

impl CgroupMount {
    /// Finds the mount in `/proc/self/mountinfo`, wherever it is (`/sys/fs/cgroup`, or
    /// `/sys/fs/cgroup/unified` on hybrid hosts).
    ///
    /// # Errors
    /// [`Failure::Host`] when there is none, or only a part of the hierarchy is mounted.
    pub fn find() -> Result<Self> {
        Self::among(mountinfo::read()?)
    }

    fn among(mounts: Vec<Mount>) -> Result<Self> {
        let (v2, v1): (Vec<_>, Vec<_>) = mounts
            .into_iter()
            .filter(|mount| mount.fs_type == "cgroup2" || mount.fs_type == "cgroup")
            .partition(|mount| mount.fs_type == "cgroup2");
        let v1 = v1.into_iter().map(|mount| mount.point).collect();
        let mut found: Option<Self> = None;
        // Containers bind-mount parts of the hierarchy; ids and paths need the whole.
        for mount in v2.iter().filter(|mount| mount.root == Path::new("/")) {
            // Fails if another mount on top hides this one.
            let Ok(root) = open_cgroup_dir(&mount.point) else { continue };
            match &mut found {
                Some(found) => found.other_mounts.push(mount.point.clone()),
                None => {
                    let dir = mount.point.clone();
                    found = Some(Self { dir, root, other_mounts: Vec::new(), v1: Vec::new() });
                }
            }
        }
        match (found, v2.first()) {
            (Some(found), _) => Ok(Self { v1, ..found }),
            (None, Some(part)) => Err(Failure::Host.error(format!(
                "cgroup v2 is mounted at {} only in part or hidden: mount all of it, for example \
                 \"mount -t cgroup2 none /mnt\"",
                display(&part.point)
            ))),
            (None, None) => Err(Failure::Host.error(
                "cgroup v2 is not mounted: mount it, for example \"mount -t cgroup2 none /mnt\"",
            )),
        }
    }

    /// The root, which is never charged and has no id here; for looking below it.
    pub(in crate::host) fn root(&self) -> Cgroup {
        Cgroup { path: "/".into(), dir: self.dir.clone(), id: 0 }
    }

    /// Where the hierarchy is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cgroup that `path` means: a directory below the mount, or a path from the root of the
    /// hierarchy, with or without a leading `/`.
    ///
    /// # Errors
    /// [`Failure::Cgroup`] when there is no such cgroup, or it cannot be tracked.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<Cgroup> {
        let inside = self.inside(path.as_ref())?;
        if inside.as_os_str().is_empty() {
            return Err(
                Failure::Cgroup.error("the root cgroup is never charged: name a cgroup below it")
            );
        }
        self.cgroup(&inside)
    }

    /// The path in the hierarchy that `path` means, whether there is such a cgroup or not.
    ///
    /// # Errors
    /// [`Failure::Cgroup`] when no cgroup can have it.
    pub fn named(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        Ok(Path::new("/").join(self.inside(path.as_ref())?))
    }

    /// The same, if no cgroup is there but one could be.
    pub fn absent(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = self.named(path).ok()?;
        let looked = found(self.look(path.strip_prefix("/").ok()?));
        looked.is_ok_and(|cgroup| cgroup.is_none()).then_some(path)
    }

    /// The path of the cgroup with this id; `None` when it is gone, or has no path right now.
    pub fn path_of(&self, id: u64) -> Option<PathBuf> {
        match self.by_id(id, Ok) {
            ById::Found(path) => Some(path),
            ById::Gone | ById::Unknown => None,
        }
    }

    /// Whether the cgroup with this id is still at `path`, which [`path_of`](Self::path_of) returned. Takes one system
    /// call.
    pub fn is_at(&self, id: u64, path: &Path) -> bool {
        let inside = path.strip_prefix("/").unwrap_or(path);
        handle::id_at(&self.root, inside).is_ok_and(|found| found == id)
    }

    /// The cgroup with this id.
    pub fn cgroup_of(&self, id: u64) -> ById<Cgroup> {
        self.by_id(id, |path| {
            let cgroup = self.cgroup(path.strip_prefix("/")?)?;
            ensure!(cgroup.id == id, "another one has its path");
            Ok(cgroup)
        })
    }

    /// The cgroup with this id and its ancestors without the root, from the top.
    pub fn lineage(&self, id: u64) -> ById<Vec<Cgroup>> {
        self.by_id(id, |path| {
            let above = path.strip_prefix("/")?.ancestors();
            let named = above.filter(|above| !above.as_os_str().is_empty());
            let mut lineage = named.map(|above| self.cgroup(above)).collect::<Result<Vec<_>>>()?;
            lineage.reverse();
            ensure!(lineage.last().is_some_and(|own| own.id == id), "another one has its path");
            Ok(lineage)
        })
    }

    /// Finds the path of a cgroup and applies `of` to it. A cgroup is gone only if the kernel does not know its id:
    /// while it is created or removed, or an ancestor is renamed, its path may lead nowhere.
    fn by_id<T>(&self, id: u64, of: impl Fn(PathBuf) -> Result<T>) -> ById<T> {
        let look = |dir: OwnedFd| -> Result<T> {
            let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
            let dir = readlinkat(rustix::fs::CWD, link, Vec::new())?;
            let dir = PathBuf::from(OsString::from_vec(dir.into_bytes()));
            // The path of a removed cgroup ends in " (deleted)", and so may the real name of another.
            ensure!(handle::id(&open_cgroup_dir(&dir)?)? == id, "another one has its path");
            of(Path::new("/").join(dir.strip_prefix(&self.dir)?))
        };
        for _ in 0..LOOKS {
            match handle::open(&self.root, id) {
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return ById::Gone,
                Err(_) => {}
                Ok(dir) => {
                    if let Ok(found) = look(dir) {
                        return ById::Found(found);
                    }
                }
            }
        }
        ById::Unknown
    }

    /// The children of `cgroup`. Those that are removed meanwhile are left out.
    ///
    /// # Errors
    /// Its directory cannot be read.
    pub fn children(&self, cgroup: &Cgroup) -> io::Result<Vec<Cgroup>> {
        let mut children = Vec::new();
        found(self.each_below(&cgroup.path, |id, name| {
            let (path, dir) = (cgroup.path.join(name), cgroup.dir.join(name));
            children.push(Cgroup { path, dir, id });
        }))?;
        Ok(children)
    }

    /// Passes the children of the cgroup at `path` to `take`: the id, which is the inode number of the directory
    /// (`kernfs_ino`), and the name. Takes as many system calls as looking up two or three of them.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn each_below(&self, path: &Path, mut take: impl FnMut(u64, &OsStr)) -> io::Result<()> {
        let dir = self.dir.join(path.strip_prefix("/").unwrap_or(path));
        let dir = open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // Allocates nothing for a name, unlike std's.
        let mut buffer = Vec::with_capacity(1 << 15);
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == FileType::Directory && !matches!(name, b"." | b"..") {
                take(entry.ino(), OsStr::from_bytes(name));
            }
        }
        Ok(())
    }

    fn look(&self, inside: &Path) -> io::Result<Cgroup> {
        let path = Path::new("/").join(inside);
        let dir = self.dir.join(inside);
        // One descriptor for both checks, so that both are about the same directory.
        let id = open_cgroup_dir(&dir).and_then(|dir| handle::id(&dir))?;
        Ok(Cgroup { path, dir, id })
    }

    fn cgroup(&self, inside: &Path) -> Result<Cgroup> {
        self.look(inside).map_err(|error| {
            let path = Path::new("/").join(inside);
            Failure::Cgroup.error(match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV) => format!(
                    "no cgroup {} in {}: create it first with mkdir",
                    display(&path),
                    display(&self.dir)
                ),
                Some(libc::ENOTDIR) => {
                    format!("{} is not a cgroup: name a directory", display(&path))
                }
                _ => format!("cannot use cgroup {}: {error}", display(&path)),
            })
        })
    }

    /// `path` relative to the root of the hierarchy, reduced to its names.
    fn inside(&self, path: &Path) -> Result<PathBuf> {
        if path.as_os_str().is_empty() {
            return Err(Failure::Cgroup.error("an empty path names no cgroup"));
        }
        if let Some(inside) = self.below_mount(path)? {
            return names(&inside);
        }
        let inside = names(path)?;
        // The mount may be reached through a symbolic link.
        if path.is_absolute()
            && !self.dir.join(&inside).exists()
            && let Ok(real) = path.canonicalize()
            && let Some(inside) = self.below_mount(&real)?
        {
            return names(&inside);
        }
        Ok(inside)
    }

    fn below_mount(&self, path: &Path) -> Result<Option<PathBuf>> {
        // Of nested mounts, the innermost one counts: v1 mounts are beside "unified", and v2 may be mounted on the
        // directory that holds them all.
        let v2 = std::iter::once(&self.dir).chain(&self.other_mounts).map(|dir| (dir, true));
        let v1 = self.v1.iter().map(|dir| (dir, false));
        let innermost = v2
            .chain(v1)
            .filter(|(dir, _)| path.starts_with(dir))
            .max_by_key(|(dir, _)| dir.components().count());
        match innermost {
            Some((dir, true)) => Ok(path.strip_prefix(dir).ok().map(Path::to_path_buf)),
            Some((dir, false)) => Err(Failure::Cgroup.error(format!(
                "{} is a cgroup v1 path ({} is a v1 mount): memstock tracks cgroup v2, which is at {}",
                display(path),
                display(dir),
                display(&self.dir)
            ))),
            None => Ok(None),
        }
    }
}

fn open_cgroup_dir(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open(dir, flags, Mode::empty())?;
    let magic = fstatfs(&dir)?.f_type;
    if u64::try_from(magic).ok() == Some(CGROUP2_SUPER_MAGIC) {
        Ok(dir)
    } else {
        Err(io::Error::other("it is not in cgroup v2"))
    }
}

#[cfg(test)]
mod tests;
