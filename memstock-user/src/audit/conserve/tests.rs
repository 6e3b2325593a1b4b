//! The law on ledgers made by hand.

use memstock_common::owner_of;
use memstock_common::page::{CHUNK_PAGES, UNCONFIRMED};

use super::*;

fn moment(rows: &[(u32, u32, u64)], words: &[(u32, u32, u32)]) -> Moment {
    let row = |&(index, parent, usage)| {
        (index, Row { id: 1, parent, usage, memsw: usage, swapped: 0, file: 0 })
    };
    let stock = |&(index, pending, nr_pages)| {
        let word = StockWord::new(owner_of(index), pending, nr_pages).0;
        Moving::of(&Stock { word, ..Stock::default() })
    };
    Moment { rows: rows.iter().map(row).collect(), stocks: words.iter().map(stock).collect() }
}

/// Pages of counters, none of them page cache.
fn owned(pages: &[(u32, u64)]) -> BTreeMap<u32, Owned> {
    let owned = |&(index, nr_pages)| (index, Owned { nr_pages, nr_file: 0 });
    pages.iter().map(owned).collect()
}

/// 0 has 1 and 2 below it, and 2 has 3.
const TREE: [(u32, u32, u64); 4] = [(0, NO_INDEX, 100), (1, 0, 30), (2, 0, 60), (3, 2, 20)];

#[test]
fn pages_count_for_all_above() {
    let moment = moment(&TREE, &[(3, 1, 4), (NO_INDEX, 0, 0)]);
    let ledgers = Ledgers::new(&moment, &owned(&[(0, 10), (1, 30), (2, 40), (3, 15)]));
    assert!(ledgers.balance(true), "{ledgers:?}");
    assert_eq!((ledgers.owned, ledgers.ownerless), (95, 0));
    let ledger = Ledger { usage: 100, memsw: 100, owned: 95, unused: 5, ..Ledger::default() };
    assert_eq!(ledgers.cgroups[&0], ledger);
}

#[test]
fn a_drift_has_a_sign() {
    let moment = moment(&TREE, &[]);
    let ledgers = Ledgers::new(&moment, &owned(&[(0, 10), (1, 31), (2, 40), (3, 18)]));
    assert!(!ledgers.balance(false));
    let drifts: Vec<i64> = ledgers.cgroups.values().map(Ledger::drift).collect();
    assert_eq!(drifts, [1, -1, 2, 2]);
    // The lower of the two, where the drift is; both show it.
    assert_eq!(ledgers.worst(true), Some((3, 2)));
    assert_eq!(Ledgers::default().worst(true), None);
}

#[test]
fn nobodys_pages_are_found() {
    let moment = moment(&TREE, &[(9, 0, 2)]);
    let ledgers = Ledgers::new(&moment, &owned(&[(7, 5)]));
    assert_eq!((ledgers.owned, ledgers.ownerless), (5, 7));
}

#[test]
fn drifts_do_not_cancel_out() {
    let ledger = |usage| Ledger { usage, owned: 50, ..Ledger::default() };
    let cgroups = [(0, ledger(53)), (1, ledger(47))].into();
    let ledgers = Ledgers { cgroups, ownerless: 1, ..Ledgers::default() };
    assert_eq!(ledgers.distance(), 7);
    assert_eq!(Ledgers::default().distance(), 0);
}

#[test]
fn a_counter_that_is_its_own_ancestor_does_no_harm() {
    let moment = moment(&[(0, 1, 1), (1, 0, 1)], &[]);
    Ledgers::new(&moment, &owned(&[(0, 1)]));
}

#[test]
fn owners_are_counted_marked_or_not() {
    let empty = Chunk { owners: [0; CHUNK_PAGES as usize] };
    let mut chunk = empty;
    chunk.owners[..5].copy_from_slice(&[3, 3 | FILE, 3 | FILE | UNCONFIRMED, 0, 1]);
    chunk.owners[1023] = 3;
    let owned = count([empty, chunk, empty, chunk].into_iter());
    let pages = |nr_pages, nr_file| Owned { nr_pages, nr_file };
    assert_eq!(owned, [(0, pages(2, 0)), (2, pages(8, 4))].into());
}

#[test]
fn page_cache_adds_up_at_each_level() {
    let mut moment = moment(&TREE, &[]);
    let file = |index, change| {
        Moving::of(&Stock { file: FileWord::new(owner_of(index), change).0, ..Stock::default() })
    };
    moment.stocks = vec![file(3, -2), file(2, 1)];
    for (index, told) in [(3, 7), (2, 6), (0, 6)] {
        moment.rows.get_mut(&index).unwrap().file = told;
    }
    let cache = |nr_pages, nr_file| Owned { nr_pages, nr_file };
    let owned = [(0, cache(10, 0)), (1, cache(30, 0)), (2, cache(40, 0)), (3, cache(20, 5))];
    let ledgers = Ledgers::new(&moment, &owned.into());
    assert!(ledgers.balance(true), "{ledgers:?}");
    moment.rows.get_mut(&0).unwrap().file = u64::MAX;
    let ledgers = Ledgers::new(&moment, &owned.into());
    assert_eq!((ledgers.worst(false), ledgers.cgroups[&0].file_drift()), (Some((0, -7)), -7));
}
