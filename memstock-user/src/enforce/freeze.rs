//! Freezes that memstock sets on cgroups. Each is marked, and only marked ones are lifted.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::io::Errno;

use crate::host::cgroup::display;

/// Extended attribute of a cgroup that we have frozen; it outlives us, and goes when the cgroup does.
pub(super) const MARK: &str = "trusted.memstock.held";

/// The file that freezes a cgroup.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join("cgroup.freeze")
}

/// Whether the mark of a cgroup has this value.
pub(super) fn is_marked(dir: &Path, mark: &[u8]) -> bool {
    let mut value = [0_u8; 32];
    rustix::fs::getxattr(dir, MARK, &mut value[..]).is_ok_and(|len| &value[..len] == mark)
}

/// Thaws a cgroup if it is marked, and removes the mark. Only the owner of the hold may call this, or whoever comes
/// after the owner's death.
///
/// # Errors
/// The kernel refuses.
pub(super) fn let_go(dir: &Path) -> Result<()> {
    thaw(dir)?;
    unmark(dir)
}

/// Thaws without removing the mark, which may already belong to the next hold. Does nothing without a mark.
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

/// Removes the mark.
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
