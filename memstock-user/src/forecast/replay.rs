//! Replays recorded charges under other settings: the same faults, charges and uncharges run through the algorithm
//! again, on a machine of plain memory with another batch or other slots. Must not contain a rule of charging.
//!
//! The machine's CPUs act one at a time, in the order of the recording. No limit is set.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use memstock_common::control::{Register, register};
use memstock_common::drain::drain_stock;
use memstock_common::fault::{Consumed, consume_or_miss, miss};
use memstock_common::page::charge_allocated;
use memstock_common::plain::{Cpu, Memory, Shape, cgroup_id};
use memstock_common::slots::stock_for;
use memstock_common::uncharge::uncharge_pages;
use memstock_common::{
    MAX_SLOTS, NO_INDEX, NO_LIMIT, Stock, StockWord, Word, World as _, owner_of, slot_of,
};

use crate::recording::{Charge, ChargeKind, Charges};

/// Settings with which an engine may be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Pages charged at once on a miss.
    pub batch: u32,
    /// Stock slots per CPU.
    pub slots: u32,
}

/// The result of a replay: counts over the whole run, in pages unless they count operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Page faults.
    pub faults: u64,
    /// Pages charged.
    pub charged: u64,
    /// Of these, the pages that came from a stock.
    pub from_stock: u64,
    /// Charges on the shared counters.
    pub charges: u64,
    /// Uncharges of freed pages on the shared counters.
    pub uncharges: u64,
    /// Stocks given back unused.
    pub drains: u64,
    /// The most pages charged at any time but not in use: stocked, pending or in an uncharge batch.
    pub stranded_peak: u64,
    /// Pages charged but not in use at the end.
    pub stranded_end: u64,
}

impl Outcome {
    /// Operations on the shared counters.
    pub fn shared_operations(&self) -> u64 {
        self.charges + self.uncharges + self.drains
    }
}

/// The fewest slots with which no two charged cgroups share one; [`MAX_SLOTS`] if no number is enough.
pub fn slot_each(charges: &Charges) -> u32 {
    let mut owners: Vec<_> = charges
        .events
        .iter()
        .filter(|it| it.kind != ChargeKind::Drained)
        .map(|it| owner_of(it.index))
        .collect();
    owners.sort_unstable();
    owners.dedup();
    let is_enough = |&slots: &u32| {
        let mut taken = [false; MAX_SLOTS as usize];
        owners
            .iter()
            .all(|&owner| !std::mem::replace(&mut taken[slot_of(owner, slots) as usize], true))
    };
    (1..MAX_SLOTS).find(is_enough).unwrap_or(MAX_SLOTS)
}

/// Replays the charges with a setting.
pub fn replay(charges: &Charges, setting: Setting) -> Outcome {
    let cpus = numbered(charges.events.iter().map(|charge| charge.cpu));
    let cgroups = charges.cgroups.iter().map(|it| it.index + 1).max().unwrap_or(0);
    let memory = Memory::new(Shape {
        cpus: cpus.len() as u32,
        slots: setting.slots,
        batch: setting.batch,
        cgroups,
        counts_together: true,
        chunks: 0,
        ..Shape::default()
    });
    for cgroup in &charges.cgroups {
        // A refused cgroup has no counter; its charges are replayed all the same.
        let _ = register(
            &memory.cpu(0),
            Register {
                index: cgroup.index,
                cgroup_id: cgroup_id(cgroup.index),
                parent: cgroup.parent.unwrap_or(NO_INDEX),
                memory_limit: NO_LIMIT,
                memsw_limit: NO_LIMIT,
            },
        );
    }
    let mut replay = Replay { memory: &memory, stranded: 0, peak: 0 };
    for charge in &charges.events {
        if let Some(&cpu) = cpus.get(&charge.cpu) {
            replay.step(cpu, *charge);
        }
    }
    replay.outcome()
}

/// Maps each number to its rank, from 0.
fn numbered(all: impl Iterator<Item = u32>) -> BTreeMap<u32, u32> {
    let mut numbers: BTreeMap<u32, u32> = all.map(|number| (number, 0)).collect();
    numbers.values_mut().zip(0..).for_each(|(place, number)| *place = number);
    numbers
}

struct Replay<'a> {
    memory: &'a Memory<AtomicU64>,
    stranded: u64,
    peak: u64,
}

impl Replay<'_> {
    fn step(&mut self, cpu: u32, charge: Charge) {
        let (machine, owner) = (self.memory.cpu(cpu), owner_of(charge.index));
        if charge.kind == ChargeKind::Drained {
            self.stranded -= unused(&self.memory.stocks[cpu as usize]);
            for stock in &self.memory.stocks[cpu as usize] {
                drain_stock(&machine, stock, NO_INDEX);
            }
            return;
        }
        let Some(stock) = stock_for(&machine, owner) else { return };
        // What a cgroup does changes only its own slot.
        let before = unused([stock]);
        step(&machine, stock, owner, charge);
        self.stranded = self.stranded + unused([stock]) - before;
        self.peak = self.peak.max(self.stranded);
    }

    fn outcome(self) -> Outcome {
        let all = self.memory.stocks.iter().flatten();
        let sum = |of: fn(&Stock<AtomicU64>) -> &AtomicU64| {
            all.clone().map(|stock| Word::load(of(stock))).sum()
        };
        let from_stock = sum(|stock| &stock.from_stock);
        let missed: u64 = sum(|stock| &stock.missed);
        Outcome {
            faults: sum(|stock| &stock.faults),
            charged: from_stock + missed,
            from_stock,
            charges: sum(|stock| &stock.charges),
            uncharges: sum(|stock| &stock.uncharges),
            drains: sum(|stock| &stock.drains),
            stranded_peak: self.peak,
            stranded_end: self.stranded,
        }
    }
}

fn step(machine: &Cpu<'_, AtomicU64>, stock: &Stock<AtomicU64>, owner: u32, charge: Charge) {
    match charge.kind {
        ChargeKind::Fault => {
            if consume_or_miss(stock, owner) == Consumed::Miss {
                miss(machine, stock, owner, false);
            }
        }
        ChargeKind::Charged(pages) => {
            if let Some(share) = machine.cgroup_cpu(charge.index) {
                charge_allocated(machine, Some(stock), share, (owner, pages));
            }
        }
        ChargeKind::Uncharged(pages) => uncharge_pages(machine, owner, pages),
        ChargeKind::Drained => {}
    }
}

/// Pages that are charged but not in use.
fn unused<'a>(stocks: impl IntoIterator<Item = &'a Stock<AtomicU64>>) -> u64 {
    let words = stocks.into_iter().flat_map(|stock| [&stock.word, &stock.uncharge_batch]);
    words.map(|word| u64::from(StockWord(Word::load(word)).charged())).sum()
}

#[cfg(test)]
mod tests;
