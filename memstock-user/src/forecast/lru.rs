//! Simulates what the kernel's two reclaim policies would have read again at one limit, on the sampled pages, each of
//! which stands for many (Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations", 2017).
//! `classic` and `generations` choose what to evict; this file applies the limit and counts.

mod classic;
mod dirty;
mod generations;
mod list;

use self::classic::Classic;
use self::dirty::{Dirty, Met};
use self::generations::Generations;
use super::timeline::PARTS;
use super::uses::{Use, Uses, What};
use crate::recording::Lru;

/// Extra reads of a page that was read ahead and evicted before its use, with room for one window: the kernel starts
/// again from there, and evicts as much again (`docs/measurements/2026-11-30-reclaim.md`).
const THRASHED: f64 = 2.2;
/// Pages of the first window if windows are large (`get_init_ra_size` for a read of 128 KiB, mm/readahead.c); two
/// windows of the default size fit in as many.
const FIRST_WINDOW: u64 = 128;

/// Keeps the pages that are or were in the cache, and chooses which to evict when there is no room.
trait Policy {
    /// A page enters the cache, for a use or ahead of one.
    fn enter(&mut self, used: Use, is_used: bool);
    /// Whether a page is in the cache.
    fn has(&self, page: u32) -> bool;
    /// A page is used; false if it was evicted and has to be read again.
    fn touch(&mut self, page: u32) -> bool;
    /// An evicted page is read again.
    fn refault(&mut self, used: Use);
    /// A page leaves the cache and is forgotten.
    fn leave(&mut self, page: u32);
    /// The page that reclaim looks at next; none if none is left.
    fn oldest(&mut self) -> Option<u32>;
    /// Evicts the page that [`Self::oldest`] returned.
    fn evict(&mut self, page: u32);
    /// Keeps the page that [`Self::oldest`] returned, since it is dirty.
    fn keep(&mut self, page: u32);
    /// A page that was kept is clean, and will be looked at next.
    fn rotate(&mut self, page: u32);
    /// The number of pages that those in the cache stand for.
    fn size(&self) -> u64;
}

/// What was read again at a limit, and what had to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Rereads {
    /// Pages, by file as [`Uses::file_of`] numbers them.
    pub by_file: Vec<f64>,
    /// Pages, by parts of the run.
    pub by_time: [f64; PARTS],
    /// Those among them that the kernel reads while the program still uses what was read before.
    pub in_time: f64,
    /// Those among them that are read ahead again as in the recorded run, by parts of the run.
    pub as_before: [f64; PARTS],
    /// Pages written because reclaim found only dirty ones.
    pub written: u64,
}

impl Rereads {
    /// Of an ideal LRU only the pages are known.
    pub fn of_curve(by_time: [u64; PARTS]) -> Self {
        Self {
            by_file: Vec::new(),
            by_time: by_time.map(|pages| pages as f64),
            in_time: 0.0,
            as_before: [0.0; PARTS],
            written: 0,
        }
    }

    fn add(
        &mut self,
        uses: &Uses,
        part: u16,
        Use { page, weight }: Use,
        thrash: Thrash,
        again: f64,
    ) {
        let weight = f64::from(weight);
        let pages = (thrash.times + again) * weight;
        self.in_time += thrash.times * thrash.in_time * weight;
        let file = uses.file_of[page as usize];
        if uses.in_order.contains(&file) {
            self.as_before[usize::from(part)] += again * weight;
        }
        self.by_file[file as usize] += pages;
        self.by_time[usize::from(part)] += pages;
    }
}

/// Simulates a cache at a limit of `limit` pages.
pub fn simulate(uses: &Uses, lru: Lru, limit: u64) -> Rereads {
    let pages = uses.file_of.len();
    match lru {
        Lru::Classic => run(Classic::new(pages), uses, limit),
        Lru::MultiGen => run(Generations::new(pages), uses, limit),
    }
}

fn run(mut cache: impl Policy, uses: &Uses, limit: u64) -> Rereads {
    let files = uses.file_of.iter().max().map_or(0, |&last| last as usize + 1);
    let mut rereads = Rereads {
        by_file: vec![0.0; files],
        by_time: [0.0; PARTS],
        in_time: 0.0,
        as_before: [0.0; PARTS],
        written: 0,
    };
    let mut dirty = Dirty::new(uses.file_of.len());
    let mut room = limit;
    for (part, what) in uses.each() {
        match what {
            What::Taken(index) => room = limit.saturating_sub(uses.taken[index as usize].all()),
            What::Leave(page) => {
                cache.leave(page);
                dirty.leaves(page);
            }
            What::Enter(used) => cache.enter(used, false),
            What::Dirty(used) => {
                // Writing a whole page needs no read, and does not count as a use (`FGP_WRITEBEGIN` without
                // `FGP_ACCESSED`).
                if !cache.has(used.page) {
                    cache.enter(used, false);
                }
                dirty.add(used);
            }
            What::First(used) => {
                if !cache.touch(used.page) {
                    cache.enter(used, true);
                    rereads.add(uses, part, used, thrash(uses.ahead, room), 0.0);
                }
            }
            What::Again(used) => {
                if !cache.touch(used.page) {
                    cache.refault(used);
                    rereads.add(uses, part, used, thrash(uses.ahead, room), 1.0);
                }
            }
        }
        while cache.size() > room
            && let Some(page) = cache.oldest()
        {
            match dirty.meets(page) {
                Met::Clean => cache.evict(page),
                Met::Dirty => cache.keep(page),
                Met::OnlyDirty => {
                    cache.keep(page);
                    rereads.written = rereads.written.saturating_add(dirty.write());
                    dirty.take_kept().into_iter().for_each(|page| cache.rotate(page));
                }
            }
        }
    }
    rereads
}

/// How a file is read of which pages are evicted before their use.
#[derive(Clone, Copy, Debug)]
struct Thrash {
    /// How often a page is read once more, on average.
    times: f64,
    /// The part of it that the program does not wait for.
    in_time: f64,
}

/// A file that is read ahead has two windows in the cache, the current one and the next. With less room, a part of each
/// is missed; with less than one window, nothing is read in time.
fn thrash(ahead: u64, room: u64) -> Thrash {
    let windows = 2.0 * room.max(FIRST_WINDOW) as f64 / ahead as f64;
    let times = if windows < 1.0 { windows.powf(-0.5) } else { (2.0 - windows).max(0.0).sqrt() };
    Thrash { times: THRASHED * times, in_time: (windows - 1.0).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests;
