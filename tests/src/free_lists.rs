//! Turns over the per-CPU lists of free pages.
//!
//! A free that the probes missed is healed when the page is allocated again, which on an idle host may never happen.
//! This allocates and frees most such pages once.

use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::workload::cpus::{allowed, pin};
use crate::workload::pages::round;

/// More than a list holds at rest: the kernel lets it grow while many pages are freed, and shrinks it later.
const PAGES: usize = 16384;

/// Allocates and frees enough pages, on every CPU that this process may run on, to replace what was on the lists.
///
/// # Errors
/// When memory runs out, or a CPU goes offline meanwhile.
pub fn turn_over() -> Result<()> {
    // In a thread of its own, since it changes its CPU and the caller must not.
    let turned = thread::scope(|scope| {
        let turn = || {
            allowed()?.into_iter().try_for_each(|cpu| {
                pin(cpu)?;
                round(PAGES).context("mapping pages")
            })
        };
        scope.spawn(turn).join()
    });
    turned.map_err(|_| anyhow!("turning over the lists of free pages panicked"))?
}
