//! What an engine charged while it was recorded with `--charges`: as data, and as entries of the file. Each charge
//! happened on the CPU that was named last, to a cgroup that was named before.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use memstock_common::page::CHUNK_PAGES;
use memstock_common::{MAX_BATCH, MAX_CGROUPS, MAX_DEPTH, MAX_SLOTS};
use serde::{Deserialize, Serialize};

/// The most CPUs that a kernel can be built for (`NR_CPUS`).
const MOST_CPUS: u32 = 8192;

/// What an engine charged, of all its cgroups, and its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    /// Its batch: pages charged at once on a miss.
    pub batch: u32,
    /// Its stock slots on each CPU.
    pub slots: u32,
    /// The charged cgroups and their ancestors, parents before children.
    pub cgroups: Vec<Charger>,
    /// The charges, in order for each CPU.
    pub events: Vec<Charge>,
}

/// A cgroup that was charged, or an ancestor of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charger {
    /// The index of its counter.
    pub index: u32,
    /// The index of the parent's counter; `None` at the top.
    pub parent: Option<u32>,
    /// Its path, if it was found.
    pub path: Option<PathBuf>,
}

/// An event that moved pages between cgroups, stocks and counters, or would do so under other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The CPU on which it happened.
    pub cpu: u32,
    /// The cgroup's counter index; meaningless for [`ChargeKind::Drained`].
    pub index: u32,
    /// What happened.
    pub kind: ChargeKind,
}

/// The kinds of events to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeKind {
    /// A page fault consumed a page, or missed.
    Fault,
    /// So many pages were charged when they were allocated.
    Charged(u32),
    /// So many pages were uncharged.
    Uncharged(u32),
    /// All stocks of the CPU were drained.
    Drained,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) enum ChargesEntry<'a> {
    /// The settings of the engine whose charges follow: batch and slots.
    Begun(u32, u32),
    /// A cgroup: the index of its counter, that of the parent's counter, its path.
    Charger(u32, Option<u32>, #[serde(borrow)] Option<&'a [u8]>),
    /// The entries that follow happened on this CPU.
    Cpu(u32),
    Fault(u32),
    /// The second number is the pages less one: no charge is of 0 pages.
    Charged(u32, u32),
    Uncharged(u32, u32),
    Drained,
}

impl<'a> ChargesEntry<'a> {
    pub(super) fn of_charger(charger: &'a Charger) -> Self {
        let path = charger.path.as_ref().map(|path| path.as_os_str().as_bytes());
        Self::Charger(charger.index, charger.parent, path)
    }

    pub(super) fn of(charge: Charge) -> Self {
        let Charge { index, kind, .. } = charge;
        match kind {
            ChargeKind::Fault => Self::Fault(index),
            ChargeKind::Charged(pages) => Self::Charged(index, pages.saturating_sub(1)),
            ChargeKind::Uncharged(pages) => Self::Uncharged(index, pages.saturating_sub(1)),
            ChargeKind::Drained => Self::Drained,
        }
    }
}

/// The charges read so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    charges: Option<Charges>,
    cpu: Option<u32>,
    /// Levels of the known cgroups, by index; 1 at the top.
    levels: HashMap<u32, u32>,
}

impl Reading {
    /// Takes an entry; `None` if no engine can have written it.
    pub(super) fn take(&mut self, entry: &ChargesEntry<'_>) -> Option<()> {
        let charge = match *entry {
            ChargesEntry::Begun(batch, slots) => {
                let is_possible =
                    (1..=MAX_BATCH).contains(&batch) && (1..=MAX_SLOTS).contains(&slots);
                let is_first = self.charges.is_none() && is_possible;
                self.charges = Some(Charges { batch, slots, ..Charges::default() });
                return is_first.then_some(());
            }
            ChargesEntry::Charger(index, parent, path) => {
                let level = match parent {
                    Some(parent) => self.levels.get(&parent)? + 1,
                    None => 1,
                };
                let is_new = self.levels.insert(index, level).is_none();
                let path = path.map(|path| OsStr::from_bytes(path).into());
                self.charges.as_mut()?.cgroups.push(Charger { index, parent, path });
                return (is_new && index < MAX_CGROUPS && level <= MAX_DEPTH).then_some(());
            }
            ChargesEntry::Cpu(cpu) => {
                self.cpu = Some(cpu).filter(|&cpu| cpu < MOST_CPUS);
                return self.cpu.map(|_| ());
            }
            ChargesEntry::Fault(index) => (index, ChargeKind::Fault),
            ChargesEntry::Charged(index, more) => (index, ChargeKind::Charged(pages(more)?)),
            ChargesEntry::Uncharged(index, more) => (index, ChargeKind::Uncharged(pages(more)?)),
            ChargesEntry::Drained => (0, ChargeKind::Drained),
        };
        let (index, kind) = charge;
        if kind != ChargeKind::Drained && !self.levels.contains_key(&index) {
            return None;
        }
        self.charges.as_mut()?.events.push(Charge { cpu: self.cpu?, index, kind });
        Some(())
    }

    pub(super) fn done(self) -> Option<Charges> {
        self.charges
    }
}

/// Decodes a number of pages; no charge is larger than a chunk of the owner map.
fn pages(more: u32) -> Option<u32> {
    more.checked_add(1).filter(|&pages| pages <= CHUNK_PAGES)
}

#[cfg(test)]
pub(super) mod tests;
