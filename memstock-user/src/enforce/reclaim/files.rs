//! Reclaims the page cache of the files that tasks have open: written back, and then dropped
//! (`POSIX_FADV_DONTNEED`). What somebody has mapped stays, and so does what is in memory only.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{Advice, fadvise};

/// Drops what is cached of the files that these processes have open. Says whether there were any.
pub(super) fn drop_cached(pids: &[i32]) -> bool {
    let mut seen = BTreeSet::new();
    for pid in pids {
        // A process that is gone has none.
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            drop_file(&entry.path(), &mut seen);
        }
    }
    !seen.is_empty()
}

fn drop_file(link: &Path, seen: &mut BTreeSet<(u64, u64)>) {
    // Only of a regular file: opening another may do things.
    let Ok(metadata) = fs::metadata(link) else { return };
    if !metadata.is_file() || metadata.len() == 0 || !seen.insert((metadata.dev(), metadata.ino()))
    {
        return;
    }
    let mut options = File::options();
    let Ok(file) = options.read(true).custom_flags(libc::O_NONBLOCK).open(link) else { return };
    // Dirty pages are not dropped.
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is open; the call takes no memory.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
    // Advice: what cannot be dropped stays.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_file_is_dropped_once() {
        let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.write_all(&[1; 8192]).unwrap();
        let own = std::process::id().cast_signed();
        assert!(drop_cached(&[own, own]));
        assert!(!drop_cached(&[]));
    }
}
