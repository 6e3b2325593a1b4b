//! One slot of a CPU: what each operation on its stock word and its uncharge batch leaves there.

use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::support::plain::read;
use crate::support::{NewWord, missed};
use memstock_common::file::FileWord;
use memstock_common::plain::empty_stock;
use memstock_common::stock::{Pending, Refill, Taken};
use memstock_common::{MAX_SLOTS, Stock, StockWord, Word, slot_of};

#[test]
fn consume_hits_only_for_the_cached_cgroup_with_pages_left() {
    let stock: Stock<AtomicU64> = empty_stock();
    assert!(!stock.consume(5), "nothing is cached");
    Word::store(&stock.word, StockWord::new(5, 0, 2).0);
    assert!(!stock.consume(6), "cached for another");
    assert!(stock.consume(5));
    assert_eq!(StockWord(read(&stock.word)), StockWord::new(5, 1, 1));
    assert!(stock.consume(5), "what is pending is used again");
    assert_eq!(stock.take(), StockWord::new(5, 1, 1));
    assert_eq!(read(&stock.word), 0);
    Word::store(&stock.word, StockWord::new(5, 0, 0).0);
    assert!(!stock.consume(5), "no pages left");
}

#[test]
fn commit_takes_the_pending_page_first_and_then_what_is_stocked() {
    let stock: Stock<AtomicU64> = empty_stock();
    let taken = |nr_pages, missed| Taken { nr_pages, missed };
    for (nr_pages, got, left) in [(1, 1, 3), (2, 2, 2), (4, 4, 0), (7, 4, 0)] {
        for (word, nr_missed) in [(StockWord::new(5, 1, 3), 0), (missed(5, 3), 1)] {
            Word::store(&stock.word, word.0);
            assert_eq!(stock.commit(6, nr_pages), Taken::default(), "cached for another");
            assert_eq!(stock.commit(5, nr_pages), taken(got, nr_missed));
            assert_eq!(StockWord(read(&stock.word)), StockWord::new(5, 0, left), "without a mark");
        }
    }
    assert_eq!(stock.commit(5, 1), Taken::default(), "no pages left");
    Word::store(&stock.word, StockWord::new(5, 0, 3).0);
    assert_eq!(stock.commit(5, 2), taken(2, 0), "without a fault");
    Word::store(&stock.word, missed(5, 3).0);
    assert_eq!(stock.commit(5, 0), Taken::default(), "of nothing");
    assert_eq!(stock.take(), missed(5, 3));
}

#[test]
fn a_stock_word_keeps_its_four_parts_apart() {
    let word = StockWord(0xffff_fffe << 32 | 0x0102 << 16 | 0x0304);
    assert_eq!((word.owner(), word.pending(), word.nr_pages()), (0xffff_fffe, 0x0102, 0x0304));
    assert_eq!(word.charged(), 0x0406);
    assert_eq!(StockWord::new(0xffff_fffe, 0x0102, 0x0304), word);
    assert_eq!((word.missed(), missed(7, 0xffff).missed()), (0, 1));
    let full = missed(7, 0xffff);
    assert_eq!((full.owner(), full.pending(), full.nr_pages()), (7, 1, 0xffff));
    assert_eq!(full.charged(), 0x1_0000, "the mark is no page");
}

#[test]
fn a_refill_displaces_another_cgroup_and_returns_what_has_no_room() {
    let stock: Stock<AtomicU64> = empty_stock();
    let stays = |excess| Refill { displaced: StockWord::EMPTY, excess };
    let pending = |nr_pages, missed| Pending { nr_pages, missed };
    assert_eq!(stock.refill(5, pending(0, false), 3, 8), stays(0));
    let reused = pending(1, false);
    assert_eq!(
        stock.refill(5, reused, 7, 8),
        stays(2),
        "the pending page has room, and goes first"
    );
    let displaced = StockWord::new(5, 1, 7);
    assert_eq!(stock.refill(6, pending(1, true), 9, 8), Refill { displaced, excess: 1 });
    assert_eq!(stock.refill(6, reused, 1, 8), stays(1), "no room for a pending page either");
    assert_eq!(stock.take(), missed(6, 7), "charged for the fault");
    // Without a pending page nothing is marked.
    assert_eq!(stock.refill(5, pending(0, false), 8, 8), stays(0));
    assert_eq!(stock.refill(5, pending(1, true), 1, 8), stays(1));
    assert_eq!(stock.take(), StockWord::new(5, 0, 8));
}

#[test]
fn the_page_that_a_fault_was_charged_for_stays_so_until_it_is_allocated() {
    let stock: Stock<AtomicU64> = empty_stock();
    stock.refill(5, Pending { nr_pages: 1, missed: true }, 4, 8);
    for _ in 0..3 {
        assert!(stock.consume(5), "faults that allocate nothing");
        assert_eq!(StockWord(read(&stock.word)), missed(5, 3));
    }
    assert_eq!(stock.put_back(5, 2, 8), 0);
    assert_eq!(stock.refill(5, Pending::default(), 1, 8).excess, 0);
    assert_eq!(StockWord(read(&stock.word)), missed(5, 6));
    assert_eq!(stock.commit(5, 1), Taken { nr_pages: 1, missed: 1 });
    assert!(stock.consume(5));
    assert_eq!(stock.commit(5, 1), Taken { nr_pages: 1, missed: 0 }, "once");
    // A refill for another owner removes the mark along with the page.
    stock.refill(6, Pending { nr_pages: 1, missed: true }, 4, 8);
    stock.refill(5, Pending { nr_pages: 1, missed: false }, 4, 8);
    assert_eq!(stock.take(), StockWord::new(5, 1, 3));
}

#[test]
fn freed_pages_go_back_to_the_stock_of_their_owner_up_to_the_batch() {
    let stock: Stock<AtomicU64> = empty_stock();
    assert_eq!(stock.put_back(5, 2, 8), 2, "cached for nobody");
    Word::store(&stock.word, StockWord::new(5, 1, 4).0);
    assert_eq!(stock.put_back(6, 2, 8), 2, "cached for another");
    assert_eq!(stock.put_back(5, 2, 8), 0);
    assert_eq!(stock.put_back(5, 2, 8), 1, "pending pages take room");
    assert_eq!(stock.put_back(5, 2, 8), 2);
    assert_eq!(stock.take(), StockWord::new(5, 1, 7));
}

#[test]
fn an_uncharge_batch_is_due_when_it_is_full_or_another_owners_turn_comes() {
    let stock: Stock<AtomicU64> = empty_stock();
    let nothing = StockWord::EMPTY;
    assert_eq!(stock.batch_up(5, 7, 8), [nothing; 2]);
    assert_eq!(stock.batch_up(5, 1, 8), [nothing, StockWord::new(5, 0, 8)]);
    assert_eq!(stock.take_uncharge_batch(), nothing);
    assert_eq!(stock.batch_up(5, 3, 8), [nothing; 2]);
    assert_eq!(stock.batch_up(6, 2, 8), [StockWord::new(5, 0, 3), nothing]);
    assert_eq!(stock.batch_up(5, 512, 8), [StockWord::new(6, 0, 2), StockWord::new(5, 0, 512)]);
    assert_eq!(stock.batch_up(5, 1, 1), [nothing, StockWord::new(5, 0, 1)]);
    assert_eq!(stock.batch_up(5, 4, 8), [nothing; 2]);
    assert_eq!(stock.take_uncharge_batch(), StockWord::new(5, 0, 4));
}

#[test]
fn a_file_word_keeps_its_owner_and_its_sign() {
    for owner in [1, 0x4000_0000, u32::MAX] {
        for change in [0, 1, -1, 1023, -1023, i32::MAX, i32::MIN] {
            let word = FileWord::new(owner, change);
            assert_eq!((word.owner(), word.change()), (owner, change));
        }
    }
    assert_eq!(FileWord::EMPTY, FileWord::new(0, 0));
    assert_eq!(FileWord::new(1, -1).0, 0x1_ffff_ffff);
}

#[test]
fn a_change_of_page_cache_is_due_when_it_is_a_batch_or_another_owners_turn_comes() {
    let stock: Stock<AtomicU64> = empty_stock();
    let nothing = FileWord::EMPTY;
    assert_eq!(stock.batch_file(5, 7, 8), [nothing; 2]);
    assert_eq!(stock.batch_file(5, 1, 8), [nothing, FileWord::new(5, 8)]);
    assert_eq!(stock.take_file(), nothing);
    assert_eq!(stock.batch_file(5, -7, 8), [nothing; 2]);
    assert_eq!(stock.batch_file(5, 3, 8), [nothing; 2], "there and back");
    assert_eq!(stock.batch_file(5, -4, 8), [nothing, FileWord::new(5, -8)]);
    assert_eq!(stock.batch_file(5, -3, 8), [nothing; 2]);
    assert_eq!(stock.batch_file(6, 2, 8), [FileWord::new(5, -3), nothing]);
    assert_eq!(stock.batch_file(5, 512, 8), [FileWord::new(6, 2), FileWord::new(5, 512)]);
    assert_eq!(stock.batch_file(5, -1, 1), [nothing, FileWord::new(5, -1)]);
    assert_eq!(stock.batch_file(5, 4, 8), [nothing; 2]);
    assert_eq!(stock.batch_file(5, -4, 8), [nothing; 2]);
    assert_eq!(stock.batch_file(6, 1, 8)[0].change(), 0, "nothing is to be told");
    assert_eq!(stock.take_file(), FileWord::new(6, 1));
}

/// A word for which every race is lost.
struct Contended(AtomicU64);

impl Word for Contended {
    fn load(&self) -> u64 {
        Word::load(&self.0)
    }
    fn store(&self, value: u64) {
        Word::store(&self.0, value);
    }
    fn fetch_add(&self, value: u64) -> u64 {
        Word::fetch_add(&self.0, value)
    }
    fn fetch_sub(&self, value: u64) -> u64 {
        Word::fetch_sub(&self.0, value)
    }
    fn swap(&self, value: u64) -> u64 {
        Word::swap(&self.0, value)
    }
    fn replace(&self, _current: u64, _new: u64) -> bool {
        false
    }
}

impl NewWord for Contended {
    type Entry = AtomicU32;

    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }
}

/// An operation that gives up after lost races has changed nothing, and returns every page to the caller.
#[test]
fn lost_races_lose_no_pages() {
    let stock: Stock<Contended> = empty_stock();
    let nothing = StockWord::EMPTY;
    let held = StockWord::new(5, 0, 3);
    for seen in [nothing, held, StockWord::new(6, 1, 3)] {
        stock.word.store(seen.0);
        assert!(!stock.consume(5));
        assert_eq!(stock.commit(5, 2), Taken::default());
        let pending = Pending { nr_pages: 1, missed: true };
        assert_eq!(stock.refill(5, pending, 4, 8), Refill { displaced: nothing, excess: 4 });
        assert_eq!(stock.put_back(5, 2, 8), 2);
        assert_eq!(stock.take(), seen);

        let untold = FileWord::new(5, -3);
        stock.file.store(untold.0);
        assert_eq!(stock.batch_file(5, 2, 8), [FileWord::EMPTY, FileWord::new(5, 2)]);
        assert_eq!(stock.take_file(), untold);

        stock.uncharge_batch.store(seen.0);
        assert_eq!(stock.batch_up(5, 2, 8), [nothing, StockWord::new(5, 0, 2)]);
        assert_eq!(stock.take_uncharge_batch(), seen);
    }
}

#[test]
fn an_owner_has_one_slot_of_however_many() {
    for slots in 1..=MAX_SLOTS {
        for owner in [0, 1, 6, 7, 8, 63, 64, 1000, u32::MAX] {
            assert_eq!(slot_of(owner, slots), owner % slots, "{owner} of {slots}");
        }
    }
}
