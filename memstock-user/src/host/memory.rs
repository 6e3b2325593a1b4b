//! Owns a cgroup of the kernel's own memory controller with a limit, made for one command and removed afterwards, with
//! all cgroups below it. Must not touch any other cgroup, except that remaining tasks are moved to its parent.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cgroup::{CgroupMount, display, empty, ok_if_gone, retry_while_busy, warn_of};
use super::mountinfo;

/// Decides the names of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A cgroup with a limit.
#[derive(Debug)]
pub struct Limited {
    dir: PathBuf,
    version: Version,
}

/// What happened at the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// How often a charge hit the limit.
    pub hits: u64,
    /// How many tasks the kernel killed.
    pub kills: u64,
    /// The most that was charged, in bytes; unknown on some kernels with v2.
    pub peak: Option<u64>,
}

impl Limited {
    /// Makes one of this name, with limits in bytes of its memory and of its swap; none if the host has no memory
    /// controller for it.
    ///
    /// # Errors
    /// It cannot be made, or the limit cannot be set.
    pub fn make(name: &str, limit: u64, swap: u64) -> Result<Option<Self>> {
        let mounts = mountinfo::read()?.into_iter();
        let v1 = mounts.filter(|mount| mount.fs_type == "cgroup").map(|mount| mount.point);
        let v1 = v1.into_iter().find(|point| point.join("memory.limit_in_bytes").exists());
        let (parent, version) = match v1 {
            Some(point) => (point, Version::V1),
            None => (CgroupMount::find()?.dir().to_owned(), Version::V2),
        };
        let dir = parent.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot create cgroup {}", display(&dir)))?;
        let made = Self { dir, version };
        // If the root does not delegate the controller, it is missing here.
        if !made.dir.join(made.limit_file()).exists() {
            return Ok(None);
        }
        made.limit(limit, swap)?;
        Ok(Some(made))
    }

    fn limit_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        }
    }

    fn limit(&self, limit: u64, swap: u64) -> Result<()> {
        let (file, value) = match (self.version, swap) {
            // A limit of both that is no higher is hit first, and that is not counted (seen on Linux 6.18).
            (Version::V1, 0) => ("memory.swappiness", 0),
            (Version::V1, _) => ("memory.memsw.limit_in_bytes", limit.saturating_add(swap)),
            (Version::V2, _) => ("memory.swap.max", swap),
        };
        self.write(self.limit_file(), limit)?;
        // Without the file the kernel does not account swap, and there is none to use.
        if self.dir.join(file).exists() { self.write(file, value) } else { Ok(()) }
    }

    fn write(&self, name: &str, value: u64) -> Result<()> {
        let file = self.dir.join(name);
        fs::write(&file, value.to_string())
            .with_context(|| format!("cannot set {}", display(&file)))
    }

    /// Opens its `cgroup.procs`, for tasks to join.
    ///
    /// # Errors
    /// It is gone.
    pub fn procs(&self) -> Result<File> {
        let file = self.dir.join("cgroup.procs");
        let opened = File::options().write(true).open(&file);
        opened.with_context(|| format!("cannot open {}", display(&file)))
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What happened at its limit so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn happened(&self) -> Result<Happened> {
        let number = |name: &str| Some(self.read(name).ok()?.trim().parse().unwrap_or(0));
        let (hits, killed, peak) = match self.version {
            Version::V1 => (
                ["memory.failcnt", "memory.memsw.failcnt"].into_iter().filter_map(number).sum(),
                self.read("memory.oom_control")?,
                number("memory.max_usage_in_bytes"),
            ),
            Version::V2 => {
                let events = self.read("memory.events")?;
                (super::number(&events, "max").unwrap_or(0), events, number("memory.peak"))
            }
        };
        let kills = super::number(&killed, "oom_kill").unwrap_or(0);
        Ok(Happened { hits, kills, peak })
    }

    fn read(&self, name: &str) -> Result<String> {
        let file = self.dir.join(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", display(&file)))
    }

    fn remove(&self) -> io::Result<()> {
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        let mut moved = Vec::new();
        let removed = retry_while_busy(|| {
            empty(&self.dir, parent, &mut moved)?;
            ok_if_gone(fs::remove_dir(&self.dir))
        });
        warn_of(&moved, &self.dir, parent);
        removed
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            log::warn!("cgroup {} is left behind: {error}", display(&self.dir));
        }
    }
}
