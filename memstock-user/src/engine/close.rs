//! The end of a cgroup: closed, dying, and its counter free again.

use anyhow::Result;
use memstock_common::counter::CHILD;

use super::Engine;
use super::grace::grace_period;

impl Engine {
    /// Ends the tracking of cgroups: they are dying until nothing is charged to them. After an error it can be called
    /// again with all of them.
    ///
    /// # Errors
    /// The kernel refuses, or cannot wait for a grace period.
    pub fn close(&self, indices: &[u32]) -> Result<()> {
        for &index in indices {
            if self.index_of(self.counter(index)?.id)? != Some(index) {
                continue;
            }
            // A removed cgroup has no tasks.
            if self.counter(index)?.swapped != 0 {
                self.control.swapped(index, 0)?;
            }
            self.control.close(index)?;
        }
        // A fault that found one of them before it was closed may still be filling a stock.
        grace_period()
    }

    /// Frees the counter of a dying cgroup if nothing is charged to it any more; returns whether it did.
    ///
    /// # Errors
    /// It is not dying.
    pub fn release(&self, index: u32) -> Result<bool> {
        self.flush(index)?;
        let counter = self.counter(index)?;
        let children = counter.parent / CHILD;
        if [counter.memory.usage, counter.memsw.usage, children] != [0; 3] {
            return Ok(false);
        }
        // Again, for page-cache changes that were pending while the usage was not 0: see `control::release`.
        self.flush(index)?;
        if self.counter(index)?.file != 0 {
            return Ok(false);
        }
        self.control.release(index).map(|()| true)
    }

    /// Gives back to a dying cgroup what the CPUs have stocked or are about to uncharge for it, and reports their pending
    /// changes of its page cache.
    fn flush(&self, index: u32) -> Result<()> {
        for &cpu in &self.possible {
            for slot in 0..self.info.slots {
                self.control.flush(index, cpu, slot)?;
            }
        }
        Ok(())
    }
}
