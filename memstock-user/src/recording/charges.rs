//! What an engine charged while it was recorded with `--charges`: as data, and as entries. Each charge is of the CPU that
//! was named last, and of a cgroup that was named before.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use memstock_common::page::CHUNK_PAGES;
use memstock_common::{MAX_BATCH, MAX_CGROUPS, MAX_DEPTH, MAX_SLOTS};
use serde::{Deserialize, Serialize};

/// No kernel is built for more CPUs (`NR_CPUS`).
const MOST_CPUS: u32 = 8192;

/// What an engine charged, of whatever cgroup, and what else a replay needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    /// Pages that it charged at once.
    pub batch: u32,
    /// Stock slots that it had on each CPU.
    pub slots: u32,
    /// The cgroups that were charged and those above them, each behind the one above it.
    pub cgroups: Vec<Charger>,
    /// In the order in which they came on each CPU.
    pub events: Vec<Charge>,
}

/// A cgroup that was charged, or is above one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charger {
    /// Of its counter.
    pub index: u32,
    /// Of the counter above; none at the top.
    pub parent: Option<u32>,
    /// Its path, if it was found.
    pub path: Option<PathBuf>,
}

/// Something that moved pages between cgroups, stocks and counters, or would with other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// On which CPU.
    pub cpu: u32,
    /// The cgroup's counter; of no meaning for [`ChargeKind::Drained`].
    pub index: u32,
    /// What.
    pub kind: ChargeKind,
}

/// What there is to replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeKind {
    /// A page fault consumed a page, or missed.
    Fault,
    /// So many pages were charged, as they were allocated.
    Charged(u32),
    /// So many pages were uncharged.
    Uncharged(u32),
    /// All stocks of the CPU were drained.
    Drained,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) enum ChargesEntry<'a> {
    /// Charges are recorded, of an engine with this batch and these slots.
    Begun(u32, u32),
    /// A cgroup: index of its counter, that of the one above, path.
    Charger(u32, Option<u32>, #[serde(borrow)] Option<&'a [u8]>),
    /// What follows is of this CPU.
    Cpu(u32),
    Fault(u32),
    /// Pages less one: nobody is charged for none.
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

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    charges: Option<Charges>,
    cpu: Option<u32>,
    /// How far below the top, by index.
    levels: HashMap<u32, u32>,
}

impl Reading {
    /// Takes an entry; none if no engine can have said so.
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

/// No more are charged at once than a chunk of the page-owner map has.
fn pages(more: u32) -> Option<u32> {
    more.checked_add(1).filter(|&pages| pages <= CHUNK_PAGES)
}

#[cfg(test)]
pub(super) mod tests;
