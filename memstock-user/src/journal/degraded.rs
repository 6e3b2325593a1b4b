//! Why the daemon is degraded, for `memstock show` and `memstock top`, which do not ask the daemon: a file beside the
//! stream with one reason a line. The stream says when a reason began and ended; this file says which hold now.
//!
//! The file stays open and is written in place, since a daemon that is out of file descriptors must be able to say so.
//! A reader at that very moment may see the tail of the previous text.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::exit::printable;
use crate::host::lock::{self, RUN_DIR};

/// The name of the file.
pub const DEGRADED: &str = "memstock.degraded";

/// The reason shown when no daemon runs.
const NO_DAEMON: &str =
    "no-enforcer: no daemon runs, and limits are not enforced: start one with \"memstock run\"";

/// The writing end. The file is removed with the stream.
#[derive(Debug)]
pub struct Degraded {
    file: File,
    written: Vec<String>,
}

impl Degraded {
    /// Opens the file and empties it: nothing is wrong.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open() -> Result<Self> {
        Self::open_in(Path::new(RUN_DIR))
    }

    fn open_in(dir: &Path) -> Result<Self> {
        let open = |path| -> io::Result<File> {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)?;
            // The mode of `open` is subject to the umask, and ignored for an existing file.
            file.set_permissions(Permissions::from_mode(0o644))?;
            Ok(file)
        };
        let path = dir.join(DEGRADED);
        let file = open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file, written: Vec::new() })
    }

    /// The reasons last written.
    pub fn said(&self) -> &[String] {
        &self.written
    }

    /// Writes the reasons, if they have changed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn say(&mut self, reasons: Vec<String>) -> Result<()> {
        if reasons == self.written {
            return Ok(());
        }
        let text: String = reasons.iter().map(|it| format!("{}\n", printable(it))).collect();
        self.file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| self.file.set_len(text.len() as u64))
            .with_context(|| format!("cannot write {RUN_DIR}/{DEGRADED}"))?;
        self.written = reasons;
        Ok(())
    }
}

/// Reads why the running engine is degraded; empty if it is not.
pub fn read() -> Vec<String> {
    match lock::holder() {
        // What a dead daemon wrote may no longer hold.
        Ok(None) => vec![NO_DAEMON.into()],
        _ => of_daemon(),
    }
}

/// The same if a daemon is known to run.
pub fn of_daemon() -> Vec<String> {
    read_in(Path::new(RUN_DIR))
}

fn read_in(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join(DEGRADED)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_in(dir.path()).is_empty());
        let mut degraded = Degraded::open_in(dir.path()).unwrap();
        for reasons in [vec!["a: b\nc".to_owned(), "d".into()], vec!["1".into()], vec![]] {
            degraded.say(reasons.clone()).unwrap();
            let shown: Vec<_> = reasons.iter().map(|it| it.replace('\n', "\\x0a")).collect();
            assert_eq!(read_in(dir.path()), shown);
        }
        degraded.say(vec!["of one that was killed".into()]).unwrap();
        let _next = Degraded::open_in(dir.path()).unwrap();
        assert!(read_in(dir.path()).is_empty());
    }
}
