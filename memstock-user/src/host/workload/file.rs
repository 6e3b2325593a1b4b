//! Reads files of others, and only when they have changed. They must be small, regular and of the right owner; others
//! are ignored, with one warning each.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::host::cgroup::display;

/// Size limit of a file about one container, in bytes.
pub(super) const SMALL: u64 = 1 << 20;
/// Size limit of a file about all containers, in bytes.
pub(super) const LARGE: u64 = 8 << 20;
/// Two changes within this time can have the same timestamp: the kernel's clock for files may tick only every 10 ms.
const TICKS: Duration = Duration::from_millis(50);
/// The most names that are read of a directory.
const MOST_NAMES: usize = 1 << 16;

/// A cache of files, each with the value made from it; `None` for files that are not trusted.
pub(super) struct Files<T> {
    most_bytes: u64,
    known: BTreeMap<PathBuf, Known<T>>,
}

struct Known<T> {
    stamp: Stamp,
    made: Option<Arc<T>>,
    /// Whether it had been unchanged for so long that another change would have another timestamp.
    is_settled: bool,
    is_used: bool,
}

/// What changes whenever a file does.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// The owner that files must have, and what was wrong with some.
pub(super) struct Trust {
    pub(super) owner: u32,
    warned: BTreeSet<PathBuf>,
    pub(super) warnings: Vec<String>,
}

impl Trust {
    pub(super) fn new(owner: u32) -> Self {
        Self { owner, warned: BTreeSet::new(), warnings: Vec::new() }
    }

    fn warn(&mut self, path: &Path, why: &str) {
        // Limited, in case somebody creates new ones all the time.
        const MOST: usize = 100;
        if self.warned.len() < MOST && self.warned.insert(path.to_owned()) {
            let path = display(path);
            self.warnings
                .push(format!("{path} is not trusted, so no names are read from it: {why}"));
        }
    }
}

impl<T> Files<T> {
    pub(super) fn new(most_bytes: u64) -> Self {
        Self { most_bytes, known: BTreeMap::new() }
    }

    /// The value that `make` makes of the file as it is now; `make` is called only if the file has changed.
    fn get(
        &mut self,
        path: &Path,
        trust: &mut Trust,
        look: impl FnOnce(&Path) -> io::Result<Metadata>,
        make: impl FnOnce(&Path, u32, u64) -> Result<Option<(Metadata, T)>, String>,
    ) -> Option<Arc<T>> {
        let looked = look(path).ok()?;
        let stamp = Stamp::of(&looked);
        let is_same = |known: &&mut Known<T>| known.is_settled && known.stamp == stamp;
        if let Some(known) = self.known.get_mut(path).filter(is_same) {
            known.is_used = true;
            return known.made.clone();
        }
        let age = looked.modified().ok().and_then(|modified| modified.elapsed().ok());
        let (read, made) = match make(path, trust.owner, self.most_bytes) {
            Ok(None) => return None,
            Ok(Some((found, made))) => (Stamp::of(&found), Some(Arc::new(made))),
            Err(why) => {
                trust.warn(path, &why);
                (stamp, None)
            }
        };
        let is_settled = read == stamp && age.is_some_and(|age| age > TICKS);
        let known = Known { stamp, made: made.clone(), is_settled, is_used: true };
        self.known.insert(path.to_owned(), known);
        made
    }

    /// Forgets files not asked for since the last call.
    pub(super) fn forget_unused(&mut self) {
        self.known.retain(|_, known| std::mem::take(&mut known.is_used));
    }

    #[cfg(test)]
    pub(super) fn nr_known(&self) -> usize {
        self.known.len()
    }
}

impl<T: DeserializeOwned> Files<T> {
    /// The contents of a JSON file.
    pub(super) fn json(&mut self, path: &Path, trust: &mut Trust) -> Option<Arc<T>> {
        self.get(path, trust, Path::symlink_metadata, |path, owner, most_bytes| {
            let Some((found, bytes)) = read(path, owner, most_bytes)? else { return Ok(None) };
            // serde_json stops at a depth of 128.
            let made = serde_json::from_slice(&bytes).map_err(|error| {
                // Not the error itself, which quotes from the file.
                format!("not the JSON that is expected, at line {}", error.line())
            })?;
            Ok(Some((found, made)))
        })
    }
}

impl Files<Vec<OsString>> {
    /// The names in a directory, whose timestamp changes when one is added or removed.
    pub(super) fn names(&mut self, path: &Path, trust: &mut Trust) -> Option<Arc<Vec<OsString>>> {
        // Follows a symbolic link: the directory may be on another disk.
        self.get(path, trust, Path::metadata, |path, owner, _| {
            // Taken before reading: if a name is added meanwhile, it is read again.
            let Some(found) = gone_is_none(fs::metadata(path))? else { return Ok(None) };
            is_ours(&found, owner)?;
            let Some(entries) = gone_is_none(fs::read_dir(path))? else { return Ok(None) };
            let names: Vec<_> =
                entries.take(MOST_NAMES).flatten().map(|entry| entry.file_name()).collect();
            Ok(Some((found, names)))
        })
    }
}

/// The file's metadata and contents; none if there is no file.
fn read(path: &Path, owner: u32, most_bytes: u64) -> Result<Option<(Metadata, Vec<u8>)>, String> {
    let mut options = File::options();
    // So that a FIFO does not block, and a terminal does not become our controlling one.
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    let Some(opened) = gone_is_none(options.open(path))? else { return Ok(None) };
    let found = opened.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("not a regular file".into());
    }
    is_ours(&found, owner)?;
    let mut bytes = Vec::new();
    let too_large = || format!("larger than {} MiB", most_bytes >> 20);
    if found.len() > most_bytes {
        return Err(too_large());
    }
    opened.take(most_bytes + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > most_bytes { Err(too_large()) } else { Ok(Some((found, bytes))) }
}

/// Checks the owner, and that nobody else may write to it: not everybody, and no group but the owner's.
fn is_ours(found: &Metadata, owner: u32) -> Result<(), String> {
    let (uid, mode) = (found.uid(), found.mode());
    if uid != owner {
        return Err(format!("it belongs to uid {uid}"));
    }
    match found.gid() {
        _ if mode & 0o002 != 0 => Err("anybody may write to it".into()),
        gid if mode & 0o020 != 0 && gid != owner => Err(format!("group {gid} may write to it")),
        _ => Ok(()),
    }
}

fn gone_is_none<T>(result: io::Result<T>) -> Result<Option<T>, String> {
    match result {
        Ok(found) => Ok(Some(found)),
        // Without permission to read, there are no names.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES)
            ) =>
        {
            Ok(None)
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Err("a symbolic link".into()),
        Err(error) => Err(error.to_string()),
    }
}
