//! The kernel's own reclaim, where its memory controller knows the cgroup.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Wish;
use crate::cgroup::Cgroup;
use crate::enforce::undo::Undo;
use crate::host::page_size;
use crate::kernel_cgroup::KernelCgroups;

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

/// The v1 memory cgroup that stands for a cgroup.
pub(super) struct Controller {
    limit: PathBuf,
    usage: PathBuf,
}

impl Controller {
    pub(super) fn of(kernel: &KernelCgroups, cgroup: &Cgroup) -> Option<Self> {
        let dir = kernel.dir(&cgroup.path)?;
        let [limit, usage] =
            ["memory.limit_in_bytes", "memory.usage_in_bytes"].map(|file| dir.join(file));
        (limit.exists() && usage.exists()).then_some(Self { limit, usage })
    }

    /// Sets its limit below its usage, which the kernel reclaims for, and puts the old one back.
    pub(super) fn squeeze(&self, undo: &RefCell<Undo>, wish: Wish) -> Result<bool> {
        let read = |file: &PathBuf| -> Result<String> {
            let text = fs::read_to_string(file);
            Ok(text.with_context(|| format!("cannot read {}", file.display()))?.trim().to_owned())
        };
        let (old, usage) = (read(&self.limit)?, read(&self.usage)?);
        let usage: u64 = usage.parse().context("memory.usage_in_bytes is no number")?;
        let new = usage.saturating_sub(wish.nr_pages * page_size());
        let todo = undo.borrow_mut().add(&self.limit, &old)?;
        let squeezed = fs::write(&self.limit, new.to_string());
        let restored = fs::write(&self.limit, &old);
        undo.borrow_mut().done(todo);
        restored.with_context(|| format!("cannot restore {} to {old}", self.limit.display()))?;
        match squeezed {
            // It could not get below the new limit, but has reclaimed what it could.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(true),
            squeezed => {
                let what = || format!("cannot write {}", self.limit.display());
                squeezed.map(|()| true).with_context(what)
            }
        }
    }
}
