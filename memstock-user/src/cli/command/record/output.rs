//! The file of a recording: what was there before becomes `.old`, and is put back if nothing comes of this one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::host::cgroup::display;

/// A file that is being written.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    /// Where the one before it is.
    old: Option<PathBuf>,
    is_kept: bool,
}

impl Output {
    /// Makes it, empty.
    ///
    /// # Errors
    /// It cannot be made, or the one before it not be renamed.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let old = match fs::symlink_metadata(path) {
            // What is no file has no length, and stays where it is.
            Ok(found) if found.is_file() => {
                let mut old = OsString::from(path);
                old.push(".old");
                let old = PathBuf::from(old);
                fs::rename(path, &old)
                    .with_context(|| format!("cannot rename {}", display(path)))?;
                Some(old)
            }
            _ => None,
        };
        let made = File::create(path);
        if let (Err(_), Some(old)) = (&made, &old) {
            let _ = fs::rename(old, path);
        }
        let file = made.with_context(|| format!("cannot write {}", display(path)))?;
        Ok(Self { path: path.into(), file, old, is_kept: false })
    }

    /// To write to.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Something came of it.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.is_kept || !fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_file()) {
            return;
        }
        // Nobody is left to tell.
        let _ = match &self.old {
            Some(old) => fs::rename(old, &self.path),
            None => fs::remove_file(&self.path),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_before_becomes_old_unless_nothing_comes_of_this() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("a"), dir.path().join("a.old"));
        let text = |path: &Path| fs::read_to_string(path).ok();
        drop(Output::create(&path).unwrap());
        assert!(!path.exists() && !old.exists());
        for (before, is_kept) in [("1", true), ("2", false), ("3", true)] {
            fs::write(&path, before).unwrap();
            let mut output = Output::create(&path).unwrap();
            assert_eq!((text(&path), text(&old)), (Some(String::new()), Some(before.into())));
            if is_kept {
                output.keep();
            }
            drop(output);
            let now = if is_kept { "" } else { before };
            assert_eq!(text(&path).as_deref(), Some(now));
            assert_eq!(old.exists(), is_kept);
        }
        assert!(Output::create(&dir.path().join("no/such")).is_err());
        // What is no file is neither renamed nor removed.
        drop(Output::create(Path::new("/dev/null")).unwrap());
        assert!(Path::new("/dev/null").exists());
    }
}
