//! How far a limit can be exceeded, with and without the kernel half's throttle, which is part of the fault program.

use anyhow::Result;

use crate::Engine;

impl Engine {
    /// Whether the kernel half delays tasks above a limit. It does not where the kernel has no page-fault tracepoints.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn throttles(&self) -> Result<bool> {
        Ok(self.show()?.cpus.iter().all(|cpu| cpu.faults.is_some()))
    }

    /// Pages by which the usage may exceed a limit where a task that is not stopped gets `unstopped` pages above it.
    ///
    /// With the throttle: CPUs × batch, as much as may be stocked. While the daemon has yet to act, each page above the
    /// limit is delayed longer than the one before, by 0.9 ms from the 14th on: so many would take two tasks 20 ms.
    ///
    /// Without it a task allocates at full speed until the daemon has frozen it. How much that is depends on the
    /// machine (181 to 4325 pages on two emulated Cortex-A72 whose host is busy): only a task that nobody stops is told
    /// apart.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn overshoot(&self, unstopped: u64) -> Result<u64> {
        if !self.throttles()? {
            return Ok(unstopped - 1);
        }
        let show = self.show()?;
        Ok(show.cpus.len() as u64 * show.batch)
    }
}
