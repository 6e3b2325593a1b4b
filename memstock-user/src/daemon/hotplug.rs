//! Reports CPUs that go offline and come online, with the receipts of their drains. The kernel half does the draining.
//!
//! The kernel half reports every step of a CPU hotplug transition, but not its direction: step numbers differ between
//! kernels. sysfs says whether a CPU is online; that it was offline in between is known only from the reported steps.
//! The last step can be missed when it runs on the CPU that is coming up, so sysfs is polled until that CPU is online.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use memstock_common::Event;

use crate::enforce::drains::Receipt;
use crate::host;
use crate::journal::Record;
use crate::journal::record::Why;

/// A CPU went offline or came online.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, when a CPU comes or goes")]
pub enum Change {
    /// It is offline, and the kernel half has drained it.
    Dead(u32, Receipt),
    /// It is online.
    Online(u32),
}

impl Change {
    /// Converts it to records; for a CPU that went offline these include the receipt of its drain.
    pub fn into_records(self) -> Vec<Record> {
        match self {
            Self::Dead(cpu, receipt) => vec![Record::CpuDead { cpu }, receipt.into()],
            Self::Online(cpu) => vec![Record::CpuOnline { cpu }],
        }
    }
}

/// What the kernel half drained during a transition.
#[derive(Clone, Copy, Debug, Default)]
struct Transition {
    nr_pages: u64,
    first_ns: u64,
    last_ns: u64,
}

/// The CPUs that were online at the last look, and the transitions in progress.
#[derive(Debug)]
pub struct Hotplug {
    online: BTreeSet<u32>,
    transitions: BTreeMap<u32, Transition>,
    is_due: bool,
}

impl Hotplug {
    /// Starts from the CPUs that are online now.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn new() -> Result<Self> {
        let online = host::cpus()?.online.into_iter().collect();
        Ok(Self { online, transitions: BTreeMap::new(), is_due: false })
    }

    /// Notes that a step of a transition was reported.
    pub fn step(&mut self, event: &Event) {
        // The kernel's CPU number, which fits into 32 bits.
        let cpu = event.cpu as u32;
        let transition = self.transitions.entry(cpu).or_default();
        transition.nr_pages += event.nr_pages;
        if transition.first_ns == 0 {
            transition.first_ns = event.time_ns;
        }
        transition.last_ns = event.time_ns;
        self.is_due = true;
    }

    /// Schedules another look at sysfs if a transition is in progress.
    pub fn look_again(&mut self) {
        self.is_due |= !self.transitions.is_empty();
    }

    /// Schedules a look at sysfs because events may have been lost.
    pub fn catch_up(&mut self) {
        self.is_due = true;
    }

    /// The CPUs that went offline or came online since the last call.
    ///
    /// # Errors
    /// sysfs cannot be read.
    pub fn changes(&mut self) -> Result<Vec<Change>> {
        if !std::mem::take(&mut self.is_due) {
            return Ok(Vec::new());
        }
        Ok(self.compare(host::cpus()?.online.into_iter().collect()))
    }

    fn compare(&mut self, online: BTreeSet<u32>) -> Vec<Change> {
        let changed: Vec<_> = self.online.symmetric_difference(&online).copied().collect();
        self.online = online;
        changed
            .into_iter()
            .map(|cpu| {
                let transition = self.transitions.remove(&cpu).unwrap_or_default();
                if self.online.contains(&cpu) { Change::Online(cpu) } else { dead(cpu, transition) }
            })
            .collect()
    }
}

fn dead(cpu: u32, transition: Transition) -> Change {
    let receipt = Receipt {
        why: Why::CpuDead,
        cgroup: None,
        cpus: [(cpu, transition.nr_pages)].into(),
        took: Duration::from_nanos(transition.last_ns.saturating_sub(transition.first_ns)),
        since_event: None,
        merged: 0,
    };
    Change::Dead(cpu, receipt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(online: BTreeSet<u32>) -> Hotplug {
        Hotplug { online, transitions: BTreeMap::new(), is_due: false }
    }

    #[test]
    fn what_went_and_came_is_told_once() {
        let mut hotplug = of([0, 2, 7].into());
        for (time_ns, nr_pages) in [(1_000, 0), (3_000, 31), (9_000, 2)] {
            hotplug.step(&Event { cpu: 7, time_ns, nr_pages, ..Event::default() });
        }
        let changes = hotplug.compare([0, 2, 5].into());
        let [Change::Online(5), Change::Dead(7, receipt)] = &changes[..] else {
            panic!("{changes:?}");
        };
        assert_eq!(receipt.cpus, [(7, 33)].into());
        assert_eq!(receipt.took, Duration::from_micros(8));
        assert_eq!(hotplug.compare([0, 2, 5].into()), []);
        assert_eq!(hotplug.compare([0, 2, 5, 7].into()), [Change::Online(7)]);
    }

    /// The step is reported before sysfs shows the CPU, and no other step follows.
    #[test]
    fn one_that_is_under_way_is_looked_at_again() {
        let online = host::cpus().unwrap().online;
        let here = online[0];
        let mut hotplug = of(online.iter().copied().filter(|&cpu| cpu != here).collect());
        hotplug.look_again();
        assert_eq!(hotplug.changes().unwrap(), []);
        hotplug.step(&Event { cpu: here.into(), ..Event::default() });
        assert!(hotplug.is_due, "it is looked at at once");
        // As if sysfs had been read before the CPU was online.
        hotplug.is_due = false;
        hotplug.look_again();
        assert_eq!(hotplug.changes().unwrap(), [Change::Online(here)]);
        hotplug.look_again();
        assert!(!hotplug.is_due);
    }

    #[test]
    fn nothing_is_read_when_nothing_was_heard() {
        let mut hotplug = of([].into());
        assert_eq!(hotplug.changes().unwrap(), []);
        hotplug.catch_up();
        assert!(!hotplug.changes().unwrap().is_empty());
    }
}
