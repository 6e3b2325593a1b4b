//! The CPUs' lists of free pages, turned over.
//!
//! A free that the probes have missed is healed when the page is allocated again. On a host at rest that may
//! take for ever; here most of such pages are allocated and freed once.

use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::workload::cpus::{Cpus, pin};
use crate::workload::pages::round;

/// More than a list holds at rest: the kernel lets it grow while much is freed, and shrinks it later.
const PAGES: usize = 16384;

/// Allocates and frees so many pages on every CPU that this process may run on that what was on the lists
/// goes.
///
/// # Errors
/// When memory runs out, or a CPU goes offline meanwhile.
pub fn turn_over() -> Result<()> {
    // In a thread, since it moves about and the caller is to stay where it is.
    let turned = thread::scope(|scope| {
        let turn = || {
            Cpus::All.numbers()?.into_iter().try_for_each(|cpu| {
                pin(cpu)?;
                round(PAGES).context("mapping pages")
            })
        };
        scope.spawn(turn).join()
    });
    turned.map_err(|_| anyhow!("turning over the lists of free pages panicked"))?
}
