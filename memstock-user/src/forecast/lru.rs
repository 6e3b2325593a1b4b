//! What the kernel's own two ways of choosing what to reclaim would have read again at one limit: each simulated on the
//! sampled pages, in which a page stands for many (Waldspurger et al., "Cache Modeling and Optimization using Miniature
//! Simulations", 2017). `classic` and `generations` decide what goes; this has the limit and counts.

mod classic;
mod generations;
mod list;

use self::classic::Classic;
use self::generations::Generations;
use super::timeline::PARTS;
use super::uses::{Use, Uses, What};
use crate::recording::Lru;

/// Pages that were used and are in the cache or were once, and which of them go when there is no room.
trait Policy {
    /// A page enters that was not in the cache, for a use or ahead of one.
    fn enter(&mut self, used: Use, is_used: bool);
    /// A page is used; false if it has been evicted, and thus has to be read again.
    fn touch(&mut self, page: u32) -> bool;
    /// A page that has been evicted is read again.
    fn refault(&mut self, used: Use);
    /// A page leaves, and is forgotten.
    fn leave(&mut self, page: u32);
    /// Evicts one; false if none is left.
    fn evict(&mut self) -> bool;
    /// How many pages those in the cache stand for.
    fn size(&self) -> u64;
}

/// What was read again at a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rereads {
    /// Pages, by file; as [`Uses::file_of`] numbers them.
    pub by_file: Vec<u64>,
    /// The same, by the parts of the run.
    pub by_time: [u64; PARTS],
}

/// Simulates a cache at a limit of so many pages.
pub fn simulate(uses: &Uses, lru: Lru, limit: u64) -> Rereads {
    let pages = uses.file_of.len();
    match lru {
        Lru::Classic => run(Classic::new(pages), uses, limit),
        Lru::MultiGen => run(Generations::new(pages), uses, limit),
    }
}

fn run(mut cache: impl Policy, uses: &Uses, limit: u64) -> Rereads {
    let files = uses.file_of.iter().max().map_or(0, |&last| last as usize + 1);
    let mut rereads = Rereads { by_file: vec![0; files], by_time: [0; PARTS] };
    let mut room = limit;
    for event in &uses.events {
        match event.what {
            What::Taken(index) => room = limit.saturating_sub(uses.taken[index as usize].all()),
            What::Leave(page) => cache.leave(page),
            What::Enter(used) => cache.enter(used, false),
            What::First(used) => {
                if !cache.touch(used.page) {
                    cache.enter(used, true);
                }
            }
            What::Again(used) => {
                if !cache.touch(used.page) {
                    cache.refault(used);
                    let weight = u64::from(used.weight);
                    rereads.by_file[uses.file_of[used.page as usize] as usize] += weight;
                    rereads.by_time[usize::from(event.part)] += weight;
                }
            }
        }
        while cache.size() > room && cache.evict() {}
    }
    rereads
}

#[cfg(test)]
mod tests;
