//! The event stream: what happened, for any number of readers, without a socket. Owns the two files of the
//! stream and what is in them; decides nothing about what happens.
//!
//! The daemon appends to [`CURRENT`], a line a record ([`mod@record`]), by one write(2) each ([`mod@write`]), and
//! renames it to [`BEFORE`] when it is full. Readers ([`mod@read`]) need nothing of the daemon but the files.
//! Beside them, [`mod@degraded`] has what holds now. One text form ([`mod@line`]) is for people: standard error of `memstock run`, and `memstock events`;
//! [`mod@names`] has what people call cgroups, for that verb.

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

/// The file that is appended to.
pub const CURRENT: &str = "memstock.events";
/// The file that was full before it.
pub const BEFORE: &str = "memstock.events.1";
/// Bytes after which the current file becomes the one before: readers that are less than this behind
/// lose nothing.
pub const MAX_BYTES: u64 = 4 << 20;

/// Both files, in the order in which they are read.
pub fn files() -> [PathBuf; 2] {
    [BEFORE, CURRENT].map(|name| Path::new(RUN_DIR).join(name))
}

/// Whether there is a stream to be read, of a running engine or of one whose daemon died.
pub fn exists() -> bool {
    files().iter().any(|file| file.exists())
}

/// Removes the files, and that of the daemon's state; those who read them keep what they have open.
///
/// # Errors
/// One cannot be removed.
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
