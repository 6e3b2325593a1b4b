//! The event stream: what happened, for any number of readers, without a socket. Owns the two files of the stream and
//! their contents; decides nothing about what happens.
//!
//! The daemon appends each record ([`mod@record`]) to [`CURRENT`] as one line, by one write(2) ([`mod@write`]), and
//! renames the file to [`BEFORE`] when it is full. Readers ([`mod@read`]) need only the files, not the daemon. A file
//! beside them says what holds now ([`mod@degraded`]). The text form ([`mod@line`]) is for people: standard error of
//! `memstock run`, and `memstock events`, for which [`mod@names`] finds what people call cgroups.

mod cgroup;
pub mod event;

pub mod degraded;
pub mod kind;
pub mod line;
pub mod names;
pub mod read;
pub mod record;
mod stderr;
mod victim;
pub mod write;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use record::{Entry, Record};
pub use write::Journal;

use crate::host::lock::RUN_DIR;

/// The file to which records are appended.
pub const CURRENT: &str = "memstock.events";
/// The previous file.
pub const BEFORE: &str = "memstock.events.1";
/// Size in bytes at which the current file becomes the previous one. Readers that are less than this behind lose
/// nothing.
pub const MAX_BYTES: u64 = 4 << 20;

/// Both files, in the order in which they are read.
pub fn files() -> [PathBuf; 2] {
    [BEFORE, CURRENT].map(|name| Path::new(RUN_DIR).join(name))
}

/// Whether there is a stream to read, of a running engine or of one whose daemon died.
pub fn exists() -> bool {
    files().iter().any(|file| file.exists())
}

/// Removes these files and the one that says why the daemon is degraded. Readers keep what they have open.
///
/// # Errors
/// A file cannot be removed.
pub fn remove() -> Result<()> {
    remove_in(Path::new(RUN_DIR))
}

fn remove_in(dir: &Path) -> Result<()> {
    for path in [BEFORE, CURRENT, degraded::DEGRADED].map(|name| dir.join(name)) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => {
                removed.with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
