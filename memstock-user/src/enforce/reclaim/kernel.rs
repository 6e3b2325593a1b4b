//! Uses the kernel's own reclaim, where its memory controller knows the cgroup.

use std::fs;

use anyhow::{Context as _, Result};

use super::Request;
use crate::host::page_size;

/// Writes to the cgroup's `memory.reclaim` (Linux 5.19), if it has one. Before Linux 6.11 it cannot be told not to swap.
pub(super) fn memory_reclaim(request: &Request<'_>, must_not_swap: bool) -> Result<bool> {
    let file = request.cgroup.dir.join("memory.reclaim");
    if !file.exists() {
        return Ok(false);
    }
    let bytes = request.nr_pages.saturating_mul(page_size());
    let text = if must_not_swap { format!("{bytes} swappiness=0") } else { bytes.to_string() };
    match fs::write(&file, &text) {
        // Less was reclaimed than asked for.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && must_not_swap => Ok(false),
        written => {
            written.map(|()| true).with_context(|| format!("cannot write {}", file.display()))
        }
    }
}
