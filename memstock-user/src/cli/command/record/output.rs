//! The file of a recording. It has a temporary name until there is something to record; then an existing file becomes
//! `.old`, and it gets its own name. A recording may hold secrets: only its owner can read it, and no link to a file is
//! followed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::exit::Failure;
use crate::host::cgroup::display;

/// A file that is being written.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    /// Its temporary name, until it gets its own.
    own: Option<PathBuf>,
}

impl Output {
    /// Creates it, empty. An existing file stays as it is.
    ///
    /// # Errors
    /// It cannot be created, or `path` is a link to a file or to nothing.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot write {}", display(path));
        let found = match fs::symlink_metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(cannot),
        };
        if found.is_some_and(|found| !found.is_file()) {
            let file = special(path)?;
            return Ok(Self { path: path.into(), file, own: None });
        }
        let own = with_suffix(path, &format!(".{}.tmp", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&own);
        let file = file.with_context(cannot)?;
        Ok(Self { path: path.into(), file, own: Some(own) })
    }

    /// A handle to write to.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives it its own name, once there is something to keep; an existing file is renamed to `.old`.
    ///
    /// # Errors
    /// A file cannot be renamed. The existing one is where it was.
    pub(super) fn keep(&mut self) -> Result<()> {
        let (path, Some(from)) = (self.path.as_path(), &self.own) else { return Ok(()) };
        let old = with_suffix(path, ".old");
        let has_old = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
        if has_old {
            let renamed = fs::rename(path, &old);
            renamed.with_context(|| format!("cannot rename {}", display(path)))?;
        }
        let renamed = fs::rename(from, path);
        if renamed.is_err() && has_old {
            // The first error is the one to report.
            let _ = fs::rename(&old, path);
        }
        renamed.with_context(|| format!("cannot rename {}", display(from)))?;
        self.own = None;
        Ok(())
    }

    /// Keeps it where it is; returns its path.
    pub(super) fn leave(&mut self) -> PathBuf {
        self.own.take().unwrap_or_else(|| self.path.clone())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Only the temporary name is certainly ours. An error can no longer be reported.
        let _ = self.own.take().map(fs::remove_file);
    }
}

/// Opens what exists and is not a regular file, `/dev/stdout` for example.
fn special(path: &Path) -> Result<File> {
    let refused = || {
        let path = display(path);
        Failure::Other.error(format!("{path} is a link: name the file to write instead"))
    };
    // A link to nothing, or to a file.
    if !fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(refused());
    }
    let cannot = || format!("cannot write {}", display(path));
    let file = OpenOptions::new().write(true).open(path).with_context(cannot)?;
    // It may have been replaced in between.
    if file.metadata().with_context(cannot)?.is_file() { Err(refused()) } else { Ok(file) }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::exit::exit_code;

    fn text(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    fn count(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn the_one_before_becomes_old_once_something_comes_of_this() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("a"), dir.path().join("a.old"));
        drop(Output::create(&path).unwrap());
        assert_eq!(count(dir.path()), 0);
        fs::write(&path, "1").unwrap();
        fs::write(&old, "0").unwrap();
        drop(Output::create(&path).unwrap());
        assert_eq!((text(&path), text(&old)), (Some("1".into()), Some("0".into())));
        let mut output = Output::create(&path).unwrap();
        output.keep().unwrap();
        assert_eq!((text(&path), text(&old)), (Some(String::new()), Some("1".into())));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A second call changes nothing, and a file with its own name stays.
        output.keep().unwrap();
        assert_eq!(output.leave(), path);
        drop(output);
        assert_eq!((text(&path), text(&old)), (Some(String::new()), Some("1".into())));
        assert_eq!(count(dir.path()), 2);
        assert!(Output::create(&dir.path().join("no/such")).is_err());
    }

    #[test]
    fn what_belongs_to_another_recording_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut first = Output::create(&path).unwrap();
        first.keep().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "of another").unwrap();
        drop(first);
        assert_eq!(text(&path).as_deref(), Some("of another"));
        // A file that cannot get its own name is kept.
        fs::create_dir(dir.path().join("b.old")).unwrap();
        let path = dir.path().join("b");
        fs::write(&path, "before").unwrap();
        let mut second = Output::create(&path).unwrap();
        assert!(second.keep().is_err());
        let left = second.leave();
        drop(second);
        assert!(left.exists() && left != path);
        assert_eq!(text(&path).as_deref(), Some("before"));
    }

    #[test]
    fn no_link_is_followed_to_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        symlink(&file, &link).unwrap();
        for is_there in [false, true] {
            if is_there {
                fs::write(&file, "secret").unwrap();
            }
            let error = Output::create(&link).err().unwrap();
            assert_eq!(exit_code(&error), 125);
            assert!(error.to_string().contains("is a link"), "{error}");
            assert_eq!(file.exists(), is_there);
        }
        assert_eq!(text(&file).as_deref(), Some("secret"));
        // What is not a regular file is neither renamed nor removed.
        let null = dir.path().join("null");
        symlink("/dev/null", &null).unwrap();
        for path in [null.as_path(), Path::new("/dev/null")] {
            let mut output = Output::create(path).unwrap();
            output.keep().unwrap();
            drop(output);
            assert!(!fs::metadata(path).unwrap().is_file());
        }
        assert!(Output::create(dir.path()).is_err());
        assert_eq!(count(dir.path()), 3);
    }
}
