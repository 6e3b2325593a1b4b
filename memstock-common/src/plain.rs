//! A [`World`](crate::World) without a kernel: counters, stocks, the page-owner map and the table of tracked cgroups,
//! built of any kind of word. Plain atomics for property tests and replays, model-checked ones for loom.
//!
//! It stores, looks up and records. Decisions are made in the rest of this crate only.

mod cpu;
mod make;

use std::boxed::Box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::vec::Vec;

use crate::page::CHUNK_PAGES;
use crate::{CgroupCpu, Chunk, Counter, Entry, Event, Loss, Stock, Word};

pub use cpu::Cpu;
pub use make::empty_stock;

/// A word that can be created.
pub trait NewWord: Word {
    /// The type of page-owner entries that goes with these words.
    type Entry: NewEntry;

    /// Creates a word with this value.
    fn new(value: u64) -> Self;

    /// Reads an entry of the table of tracked cgroups. A map look-up orders the reader's later accesses to the value
    /// after the update that it found, even where a plain load does not.
    fn look_up(&self) -> u64 {
        self.load()
    }
}

impl NewWord for AtomicU64 {
    type Entry = AtomicU32;

    fn new(value: u64) -> Self {
        Self::new(value)
    }
}

/// An entry of the page-owner map that can be created.
pub trait NewEntry: Entry {
    /// Creates the entry of the page at this place in its chunk, without an owner.
    fn new(at: u32) -> Self;
}

impl NewEntry for AtomicU32 {
    fn new(_at: u32) -> Self {
        Self::new(0)
    }
}

/// The size and the settings of a world.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// CPUs, numbered from 0.
    pub cpus: u32,
    /// Stock slots per CPU.
    pub slots: u32,
    /// Pages charged at once on a miss.
    pub batch: u32,
    /// Pages that a stock keeps of those freed, if not a batch.
    pub stock_pages: Option<u32>,
    /// Freed pages uncharged at once, if not a batch.
    pub uncharge_batch: Option<u32>,
    /// Whether memory+swap is charged as well.
    pub memsw: bool,
    /// Counters, all free at first.
    pub cgroups: u32,
    /// Whether the CPUs share one set of statistics per cgroup, instead of one each.
    pub counts_together: bool,
    /// Chunks of the page-owner map.
    pub chunks: u32,
    /// Whether [`collapsed`](crate::collapse::collapsed) runs after a collapse.
    pub tracks_collapses: bool,
    /// Whether pages have reference counts, which is one step more at each allocation and free.
    pub has_counts: bool,
    /// Difference between the task numbers of two neighbouring CPUs.
    pub tasks_apart: u32,
    /// Until when user space acts on limits.
    pub lease_until: u64,
    /// Time that passes with each look at the clock, ns.
    pub look_ns: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            cpus: 1,
            slots: 1,
            batch: 32,
            stock_pages: None,
            uncharge_batch: None,
            memsw: false,
            cgroups: 4,
            counts_together: false,
            chunks: 1,
            tracks_collapses: false,
            has_counts: false,
            tasks_apart: 1,
            lease_until: 0,
            look_ns: 0,
        }
    }
}

/// What the kernel half keeps in maps. The cgroup with counter `index` has the id `cgroup_id(index)`.
pub struct Memory<W: NewWord> {
    /// Size and settings.
    pub shape: Shape,
    /// The shared counters.
    pub counters: Vec<Counter<W>>,
    /// Stocks, by CPU and slot.
    pub stocks: Vec<Vec<Stock<W>>>,
    /// Statistics, by CPU and counter.
    pub shares: Vec<Vec<CgroupCpu<W>>>,
    /// The page-owner map.
    pub chunks: Vec<Box<Chunk<W::Entry>>>,
    /// The kernel's reference counts of the first chunk: 1 of a page in use, 0 of a free one.
    pub counts: Option<Box<Chunk<W::Entry>>>,
    /// Tracked cgroups, by key: index of the counter plus one.
    table: Vec<W>,
    generation: W,
    setting: W,
    collapses: Vec<W>,
    // The fields below only record; a model checker does not explore them.
    now: AtomicU64,
    events: Mutex<Vec<Event>>,
    losses: Vec<AtomicU64>,
}

/// Keys begin here, so that none can be mistaken for an owner or an index.
const FIRST_KEY: u32 = 1_000_000;

/// The key of the cgroup with counter `index`.
pub const fn key(index: u32) -> u32 {
    FIRST_KEY + index
}

/// The id of the cgroup with counter `index`; its upper half must never matter.
pub const fn cgroup_id(index: u32) -> u64 {
    7 << 32 | key(index) as u64
}

impl<W: NewWord> Memory<W> {
    /// The world as seen by programs on a CPU.
    pub fn cpu(&self, cpu: u32) -> Cpu<'_, W> {
        Cpu { memory: self, cpu }
    }

    /// A counter; panics if there is none.
    pub fn counter(&self, index: u32) -> &Counter<W> {
        &self.counters[index as usize]
    }

    /// A slot of a CPU; panics if there is none.
    pub fn slot(&self, cpu: u32, slot: u32) -> &Stock<W> {
        &self.stocks[cpu as usize][slot as usize]
    }

    /// The statistics of a cgroup on a CPU.
    pub fn share(&self, cpu: u32, index: u32) -> &CgroupCpu<W> {
        &self.shares[cpu as usize][index as usize]
    }

    /// The entry of a page frame inside the page-owner map.
    pub fn entry(&self, pfn: u64) -> &W::Entry {
        self.chunks[(pfn / u64::from(CHUNK_PAGES)) as usize].entry(pfn)
    }

    /// The count of a loss.
    pub fn loss(&self, loss: Loss) -> u64 {
        self.losses[loss as usize].load(SeqCst)
    }

    /// Advances the clock by this many ns.
    pub fn advance(&self, ns: u64) {
        self.now.fetch_add(ns, SeqCst);
    }

    /// The events since the last call.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut *events)
    }
}
