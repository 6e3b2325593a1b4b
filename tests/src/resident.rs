//! Keeps a program's files in memory, so that no run of it is charged for reading them.
//!
//! Page cache is charged to whoever reads it in, and read-ahead depends on where the program is mapped, which is
//! random: of forty runs in a row of a debug build, one in six was charged for up to 700 pages of it, long after the
//! first. The host may also evict the pages at any time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use memmap2::Mmap;

/// Files whose pages are all locked into memory. Unlocked on `Drop`.
#[derive(Debug)]
pub struct Resident {
    _files: Vec<Mmap>,
}

impl Resident {
    /// Locks the program at `path` and the libraries of the calling process, which it must share.
    ///
    /// # Errors
    /// When a file cannot be read, or the kernel refuses to lock its pages.
    pub fn program(path: &Path) -> Result<Self> {
        let maps = fs::read_to_string("/proc/self/maps").context("/proc/self/maps")?;
        let mapped = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
        let libraries = mapped.filter(|path| path.contains(".so")).map(PathBuf::from);
        let files: BTreeSet<PathBuf> = libraries.chain([path.to_path_buf()]).collect();
        let _files = files.iter().map(|file| locked(file)).collect::<Result<_>>()?;
        Ok(Self { _files })
    }
}

fn locked(path: &Path) -> Result<Mmap> {
    let locked = || {
        let file = File::open(path)?;
        // SAFETY: nothing reads through the mapping, so it does not matter if the file changes.
        let map = unsafe { Mmap::map(&file) }?;
        // Also reads in what is missing.
        map.lock().map(|()| map)
    };
    locked().with_context(|| format!("holding {} in memory", path.display()))
}
