//! Compares a world with the reference, slot by slot.

use std::sync::atomic::AtomicU64;

use memstock_common::file::FileWord;
use memstock_common::{NOBODY, StockWord, Word};

use crate::support::reference::{Reference, Tally};
use crate::support::{World, missed, owner};

/// Checks that the percentage of charged pages that came from a stock is consistent.
pub fn percentages(world: &World<AtomicU64>, reference: &Reference) {
    let check = |from_stock: &AtomicU64, missed: &AtomicU64, charged: Option<&u64>| {
        let [from_stock, missed] = [from_stock, missed].map(Word::load);
        let charged = *charged.unwrap_or(&0);
        assert!(from_stock <= charged && missed <= charged, "{from_stock}, {missed}");
        assert_eq!(from_stock + missed, charged, "each page is one or the other");
        let percent = (100 * from_stock).checked_div(from_stock + missed);
        assert!(percent.is_none_or(|percent| percent <= 100), "{percent:?} %");
    };
    for cpu in 0..world.shape.cpus {
        for &group in reference.groups.keys() {
            let share = world.share(cpu, group);
            check(&share.from_stock, &share.missed, reference.charged.get(&(cpu, group)));
        }
        for slot in 0..world.shape.slots {
            let stock = world.slot(cpu, slot);
            check(&stock.from_stock, &stock.missed, reference.charged_in.get(&(cpu, slot)));
        }
    }
}

/// Compares what each CPU has stocked, and what it has yet to report.
pub fn slots(world: &World<AtomicU64>, reference: &Reference) {
    for (&(cpu, slot), due) in &reference.stocks {
        let stock = world.slot(cpu, slot);
        let cached = due.group.map_or(NOBODY, owner);
        let due = match due.missed {
            0 => StockWord::new(cached, due.pending as u32, due.left as u32),
            _ => missed(cached, due.left as u32),
        };
        assert_eq!(StockWord(Word::load(&stock.word)), due, "stock of CPU {cpu}");
        let due = reference.uncharging.get(&(cpu, slot));
        let due = due.map_or(StockWord::EMPTY, |&(group, nr_pages)| {
            StockWord::new(owner(group), 0, nr_pages as u32)
        });
        assert_eq!(StockWord(Word::load(&stock.uncharge_batch)), due, "of CPU {cpu}");
        let due = reference.untold.get(&(cpu, slot)).filter(|untold| untold.1 != 0);
        let untold = FileWord(Word::load(&stock.file));
        let untold = (untold.change() != 0).then(|| (untold.owner(), untold.change().into()));
        assert_eq!(untold, due.map(|&(group, change)| (owner(group), change)), "CPU {cpu}");
        let tally = Tally {
            faults: Word::load(&stock.faults),
            from_stock: Word::load(&stock.from_stock),
            missed: Word::load(&stock.missed),
            refills: Word::load(&stock.refills),
            drains: Word::load(&stock.drains),
            charges: Word::load(&stock.charges),
            uncharges: Word::load(&stock.uncharges),
        };
        assert_eq!(tally, reference.tallies[&(cpu, slot)], "CPU {cpu}");
    }
}
