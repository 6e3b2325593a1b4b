//! The kernel's own reclaim, where its memory controller knows the cgroup.

use std::fs;

use anyhow::{Context as _, Result};

use super::Wish;
use crate::cgroup::Cgroup;
use crate::host::page_size;

/// Writes to the cgroup's `memory.reclaim` (Linux 5.19), if it has one.
pub(super) fn memory_reclaim(cgroup: &Cgroup, wish: Wish) -> Result<bool> {
    let file = cgroup.dir.join("memory.reclaim");
    if !file.exists() {
        return Ok(false);
    }
    let bytes = wish.nr_pages * page_size();
    let text = if wish.may_swap { bytes.to_string() } else { format!("{bytes} swappiness=0") };
    match fs::write(&file, &text) {
        // Less was reclaimed than asked for; or `swappiness=` is not known before Linux 6.11.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !wish.may_swap => Ok(false),
        written => {
            written.map(|()| true).with_context(|| format!("cannot write {}", file.display()))
        }
    }
}
