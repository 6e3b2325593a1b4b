//! Freezes of ours: marked, and lifted where the mark is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::io::Errno;

use crate::host::cgroup::display;

/// Extended attribute of a cgroup that is frozen by us: it goes with the cgroup, and stays if we die.
pub(super) const MARK: &str = "trusted.memstock.held";

/// Where it is frozen.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("cgroup.freeze")
}

/// Lets go of a cgroup if it is held by us, and takes the mark, which is for who set it, or for who comes when he is gone.
///
/// # Errors
/// The kernel refuses.
pub(super) fn let_go(dir: &Path) -> Result<()> {
    thaw(dir)?;
    unmark(dir)
}

/// The same without taking the mark: it may be that of a next hold by now. Where it is gone there is nothing to let go.
///
/// # Errors
/// The kernel refuses.
pub(super) fn thaw(dir: &Path) -> Result<()> {
    let cannot = || format!("cannot let go of the tasks in {}", display(dir));
    match rustix::fs::getxattr(dir, MARK, &mut [0_u8; 0][..]) {
        Ok(_) => {}
        Err(Errno::NODATA | Errno::NOENT | Errno::NODEV) => return Ok(()),
        Err(error) => return Err(error).with_context(cannot),
    }
    match fs::write(file(dir), "0") {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        written => written.with_context(cannot),
    }
}

/// Says that it is not held by us any more.
///
/// # Errors
/// The kernel refuses.
pub(super) fn unmark(dir: &Path) -> Result<()> {
    match rustix::fs::removexattr(dir, MARK) {
        Ok(()) | Err(Errno::NODATA | Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("cannot remove {MARK} from {}", display(dir)))
        }
    }
}
