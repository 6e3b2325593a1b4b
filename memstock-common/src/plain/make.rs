//! Creating a world: all zero, like maps that the kernel has just created.

use std::boxed::Box;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::vec::Vec;

use super::{Memory, NewEntry, NewWord, Shape};
use crate::collapse::COLLAPSES;
use crate::page::CHUNK_PAGES;
use crate::{CgroupCpu, Chunk, Counter, Loss, OwnerCache, PageCounter, Stock};

fn page_counter<W: NewWord>() -> PageCounter<W> {
    PageCounter { usage: W::new(0), watermark: W::new(0), failcnt: W::new(0) }
}

fn counter<W: NewWord>() -> Counter<W> {
    let zero = || W::new(0);
    Counter {
        memory: page_counter(),
        memsw: page_counter(),
        file: zero(),
        needed_watermark: zero(),
        memory_limit: zero(),
        memsw_limit: zero(),
        id: zero(),
        parent: zero(),
        huge: zero(),
        swapped: zero(),
        near_at: zero(),
        hit_at: zero(),
    }
}

/// An empty slot.
pub fn empty_stock<W: NewWord>() -> Stock<W> {
    let zero = || W::new(0);
    Stock {
        word: zero(),
        faults: zero(),
        owner_cache: OwnerCache {
            registers: zero(),
            task: zero(),
            generation: zero(),
            owner: zero(),
        },
        uncharge_batch: zero(),
        credited: zero(),
        creditor: zero(),
        file: zero(),
        from_stock: zero(),
        missed: zero(),
        refills: zero(),
        drains: zero(),
        charges: zero(),
        uncharges: zero(),
    }
}

/// A chunk without owners, built on the heap: the stack of a model-checked thread is too small for one.
fn chunk<E: NewEntry>() -> Box<Chunk<E>> {
    let entries: Box<[E]> = (0..CHUNK_PAGES).map(E::new).collect();
    let entries: Result<Box<[E; CHUNK_PAGES as usize]>, _> = entries.try_into();
    let entries = entries.unwrap_or_else(|_| unreachable!("as many entries as a chunk has"));
    // SAFETY: a chunk is `repr(C)` and has no other field than this array.
    unsafe { Box::from_raw(Box::into_raw(entries).cast()) }
}

impl<W: NewWord> Memory<W> {
    /// Creates a world of this shape.
    pub fn new(shape: Shape) -> Self {
        let share = || CgroupCpu {
            faults: W::new(0),
            from_stock: W::new(0),
            missed: W::new(0),
            singles: W::new(0),
            forced: W::new(0),
        };
        Self {
            shape,
            counters: (0..shape.cgroups).map(|_| counter()).collect(),
            stocks: (0..shape.cpus)
                .map(|_| (0..shape.slots).map(|_| empty_stock()).collect())
                .collect(),
            shares: (0..if shape.counts_together { 1 } else { shape.cpus })
                .map(|_| (0..shape.cgroups).map(|_| share()).collect())
                .collect(),
            chunks: (0..shape.chunks).map(|_| chunk()).collect(),
            counts: shape.has_counts.then(chunk),
            // Room for one cgroup that is never tracked.
            table: (0..=shape.cgroups).map(|_| W::new(0)).collect(),
            generation: W::new(1),
            setting: W::new(0),
            collapses: (0..if shape.tracks_collapses { COLLAPSES } else { 0 })
                .map(|_| W::new(0))
                .collect(),
            now: AtomicU64::new(1_000_000_000),
            events: Mutex::new(Vec::new()),
            losses: (0..Loss::COUNT).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}
