//! Keeps a program's files in memory, so that no run of it is charged for reading them.
//!
//! Page cache is charged to whoever reads it in, and read-ahead depends on where the program is mapped, which is
//! random: of forty runs in a row of a debug build, one in six was charged for up to 700 pages of it, long after the
//! first. The host may also evict the pages at any time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use memmap2::Mmap;

use crate::PAGE;

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

/// How many pages of the files in this folder are not in memory. The host of a guest may take clean pages that were
/// unused for a while, which no kernel counter shows.
///
/// # Errors
/// When a file cannot be read.
pub fn evicted(folder: &Path) -> Result<u64> {
    let missing = |path: &Path| {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(0);
        }
        // SAFETY: nothing reads through the mapping, so it does not matter if the file changes.
        let map = unsafe { Mmap::map(&file) }?;
        let mut pages = vec![0_u8; map.len().div_ceil(usize::try_from(PAGE)?)];
        // SAFETY: mincore writes one byte for each page of the mapping, and `pages` has as many.
        let result =
            unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), pages.as_mut_ptr()) };
        ensure!(result == 0, io::Error::last_os_error());
        Ok(pages.iter().filter(|page| **page & 1 == 0).count() as u64)
    };
    let mut sum = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        sum += missing(&path).with_context(|| path.display().to_string())?;
    }
    Ok(sum)
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
