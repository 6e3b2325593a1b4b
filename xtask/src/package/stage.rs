//! The tree that becomes a package: sets the mode of each file, whatever the umask is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::exec::capture;

const DATA: u32 = 0o644;
const PROGRAM: u32 = 0o755;

/// A staged tree; removed when dropped.
pub struct Stage {
    root: PathBuf,
    _dir: TempDir,
}

impl Stage {
    /// Makes an empty tree.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("memstock-deb-").tempdir();
        let dir = dir.context("cannot make a temporary folder; is TMPDIR writable?")?;
        let root = dir.path().join("root");
        make_dir(&root)?;
        Ok(Self { root, _dir: dir })
    }

    /// The root folder of the tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the tree has the package's file `path`.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Makes a folder and its parents.
    pub fn dir(&self, path: &str) -> Result<PathBuf> {
        let mut dir = self.root.clone();
        for name in Path::new(path) {
            dir.push(name);
            if !dir.exists() {
                make_dir(&dir)?;
            }
        }
        Ok(dir)
    }

    /// Writes a data file.
    pub fn data(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.put(path, bytes.as_ref(), DATA)
    }

    /// Writes a program.
    pub fn program(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.put(path, bytes.as_ref(), PROGRAM)
    }

    fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.dir(folder)?;
        }
        let file = self.at(path);
        fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
        set_mode(&file, mode)
    }

    /// Compresses a file of the tree, without storing its name and time.
    pub fn gzip(&self, path: &str) -> Result<()> {
        let file = self.at(path);
        set_mode(&file, DATA)?;
        capture(Command::new("gzip").args(["--best", "--no-name"]).arg(file)).map(drop)
    }

    /// The paths of the package's files, sorted, without a leading slash.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        collect(&self.root, &mut found)?;
        let below = |path: &PathBuf| Some(path.strip_prefix(&self.root).ok()?.to_str()?.to_owned());
        let mut files: Vec<_> = found.iter().filter_map(below).collect();
        files.retain(|path| !path.starts_with("DEBIAN/"));
        files.sort();
        Ok(files)
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    set_mode(dir, PROGRAM)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot change the mode of {}", path.display()))
}

/// Every file below a folder.
pub fn collect(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = || format!("cannot read {}", dir.display());
    for entry in fs::read_dir(dir).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        if entry.file_type().with_context(unreadable)?.is_dir() {
            collect(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}
