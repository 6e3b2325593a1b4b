//! Cgroups that could not be found or registered: those are tried again, and the latter when there is room.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Tree;
use crate::host::cgroup::{ById, Cgroup, display};

impl Tree<'_> {
    pub(super) fn try_again(&mut self, id: u64) {
        self.unknown.entry(id).or_insert_with(Instant::now);
    }

    /// Notes one that could not be registered; it waits, if there was no room.
    pub fn leave_out(&mut self, cgroup: &Cgroup, error: &anyhow::Error) {
        self.left_out += 1;
        if self.engine.free_index().is_err() {
            self.waiting.insert(cgroup.id);
        }
        let path = display(&cgroup.path);
        log::debug!("{path}: {error:#}");
        if self.left_out == 1 {
            log::warn!(
                "{path} is charged to the cgroup above it, if that is tracked, and so will others be: {error:#}"
            );
        }
    }

    /// Looks again for one that is waiting, and still there: there is room for another.
    pub(super) fn has_room(&mut self) {
        while let Some(id) = self.waiting.pop_first() {
            if let ById::Found(_) = self.mount.cgroup_of(id) {
                return self.try_again(id);
            }
        }
    }

    /// How often a cgroup could not be registered and is charged to the one above it instead.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether there is something to [`look_again`](Self::look_again) for.
    pub fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// How long the latest of these has been looked for.
    pub fn looked_for(&self) -> Duration {
        self.unknown.values().map(Instant::elapsed).min().unwrap_or_default()
    }

    /// Looks again for new cgroups that were not found.
    ///
    /// # Errors
    /// The kernel refuses one of them for now.
    pub fn look_again(&mut self) -> Result<()> {
        let ids: Vec<_> = self.unknown.keys().copied().collect();
        let mut outcome = Ok(());
        for id in ids {
            // One that is refused must not delay the others.
            outcome = outcome.and(self.made(id));
        }
        outcome
    }
}
