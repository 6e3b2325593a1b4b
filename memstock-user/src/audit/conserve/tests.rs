//! The law on books made by hand.

use memstock_common::owner_of;
use memstock_common::page::{CHUNK_PAGES, UNCONFIRMED};

use super::*;

fn moment(rows: &[(u32, u32, u64)], words: &[(u32, u32, u32)]) -> Moment {
    let row =
        |&(index, parent, usage)| (index, Row { id: 1, parent, usage, memsw: usage, swapped: 0 });
    let stock = |&(index, pending, nr_pages)| {
        let mut stock = [0; 8];
        stock[0] = StockWord::new(owner_of(index), pending, nr_pages).0;
        stock
    };
    Moment { rows: rows.iter().map(row).collect(), stocks: words.iter().map(stock).collect() }
}

/// 0 has 1 and 2 below it, and 2 has 3.
const TREE: [(u32, u32, u64); 4] = [(0, NO_INDEX, 100), (1, 0, 30), (2, 0, 60), (3, 2, 20)];

#[test]
fn pages_count_for_all_above() {
    let moment = moment(&TREE, &[(3, 1, 4), (NO_INDEX, 0, 0)]);
    let books = Books::new(&moment, &[(0, 10), (1, 30), (2, 40), (3, 15)].into());
    assert!(books.balance(true), "{books:?}");
    assert_eq!((books.owned, books.ownerless), (95, 0));
    let book = Book { usage: 100, memsw: 100, owned: 95, unused: 5, swapped: 0 };
    assert_eq!(books.cgroups[&0], book);
}

#[test]
fn a_drift_has_a_sign() {
    let moment = moment(&TREE, &[]);
    let books = Books::new(&moment, &[(0, 10), (1, 31), (2, 40), (3, 18)].into());
    assert!(!books.balance(false));
    let drifts: Vec<i64> = books.cgroups.values().map(Book::drift).collect();
    assert_eq!(drifts, [1, -1, 2, 2]);
    // The lower of the two, which is where it is; both say so.
    assert_eq!(books.worst(true), Some((3, 2)));
    assert_eq!(Books::default().worst(true), None);
}

#[test]
fn nobodys_pages_are_found() {
    let moment = moment(&TREE, &[(9, 0, 2)]);
    let books = Books::new(&moment, &[(7, 5)].into());
    assert_eq!((books.owned, books.ownerless), (5, 7));
}

#[test]
fn drifts_do_not_cancel_out() {
    let book = |usage| Book { usage, owned: 50, ..Book::default() };
    let cgroups = [(0, book(53)), (1, book(47))].into();
    let books = Books { cgroups, ownerless: 1, ..Books::default() };
    assert_eq!(books.distance(), 7);
    assert_eq!(Books::default().distance(), 0);
}

#[test]
fn a_counter_that_is_its_own_ancestor_does_no_harm() {
    let moment = moment(&[(0, 1, 1), (1, 0, 1)], &[]);
    Books::new(&moment, &[(0, 1)].into());
}

#[test]
fn owners_are_counted_marked_or_not() {
    let empty = Chunk { owners: [0; CHUNK_PAGES as usize] };
    let mut chunk = empty;
    chunk.owners[..5].copy_from_slice(&[3, 3, 3 | UNCONFIRMED, 0, 1]);
    chunk.owners[1023] = 3;
    let owned = count([empty, chunk, empty, chunk].into_iter());
    assert_eq!(owned, [(0, 2), (2, 8)].into());
}
