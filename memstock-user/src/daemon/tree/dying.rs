//! Closes the counters of removed cgroups, and releases them when nothing is charged to them any more.

use std::collections::BTreeMap;

use anyhow::Result;
use memstock_common::index_of;

use super::{Known, Tree};
use crate::journal::Record;

impl Tree<'_> {
    /// Whether [`retry`](Self::retry) has deferred work to do.
    pub fn has_deferred(&self) -> bool {
        !self.removed.is_empty() || !self.going.is_empty()
    }

    /// Closes all removed cgroups in one grace period.
    ///
    /// # Errors
    /// The kernel refuses; the rest is tried again the next time.
    pub fn retry(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.going) {
            self.removed(id);
        }
        if !self.removed.is_empty() {
            let indices: Vec<_> = self.removed.iter().map(|known| known.index).collect();
            self.engine.close(&indices)?;
            self.dying.append(&mut self.removed);
        }
        Ok(())
    }

    /// Maps the counter index of each dying cgroup to its parent's, which is to get its pages (`reparent.rs`), or to
    /// [`NO_INDEX`](memstock_common::NO_INDEX); `None` if no pages are left.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn parents(&self) -> Result<Option<BTreeMap<u32, u32>>> {
        if self.dying.is_empty() {
            return Ok(None);
        }
        let unused = self.engine.unused()?;
        let (mut parents, mut have_pages) = (BTreeMap::new(), false);
        for &Known { index, .. } in &self.dying {
            let counter = self.engine.counter(index)?;
            parents.insert(index, index_of(counter.parent as u32));
            have_pages |= counter.memory.usage > unused.get(&index).copied().unwrap_or_default();
        }
        Ok(have_pages.then_some(parents))
    }

    /// Releases the counters of dying cgroups to which nothing is charged any more. Must not run while their pages are
    /// being reparented.
    ///
    /// # Errors
    /// The kernel refuses; the rest is tried again the next time.
    pub fn release(&mut self) -> Result<()> {
        // A cgroup can be released only after those below it.
        let mut before = usize::MAX;
        while !self.dying.is_empty() && self.dying.len() < before {
            before = self.dying.len();
            let unused = self.engine.unused()?;
            let mut at = 0;
            while let Some(&Known { index, .. }) = self.dying.get(at) {
                let usage = self.engine.counter(index)?.memory.usage;
                let is_used = usage > unused.get(&index).copied().unwrap_or_default();
                if is_used || !self.engine.release(index)? {
                    at += 1;
                } else {
                    let cgroup = self.dying.remove(at).name();
                    self.journal.publish(Record::CgroupRemoved { cgroup });
                    self.has_room();
                }
            }
        }
        Ok(())
    }
}
