//! A world for the algorithm to work on that is no kernel: counters, stocks, the page-owner map and the table of
//! tracked cgroups, made of whatever words there are. Of plain atomics for property tests and replays, of model-checked
//! ones for models.
//!
//! It stores, looks up and records. It must not decide anything: all that does is the rest of this crate.

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

/// A word that a world can make.
pub trait NewWord: Word {
    /// An entry of the page-owner map that goes with such words.
    type Entry: NewEntry;

    /// One with this in it.
    fn new(value: u64) -> Self;

    /// Reads an entry of the table of tracked cgroups. A map look-up orders what the reader then
    /// does with the value after the update that it found, whatever a plain load does.
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

/// An entry of the page-owner map that a world can make.
pub trait NewEntry: Entry {
    /// That of the page at this place in its chunk; nobody's.
    fn new(at: u32) -> Self;
}

impl NewEntry for AtomicU32 {
    fn new(_at: u32) -> Self {
        Self::new(0)
    }
}

/// How large a world is, and what it is loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// CPUs, numbered from 0.
    pub cpus: u32,
    /// Stock slots of each.
    pub slots: u32,
    /// Pages charged at once on a miss.
    pub batch: u32,
    /// Where it is not a batch.
    pub stock_pages: Option<u32>,
    /// Where it is not a batch.
    pub uncharge_batch: Option<u32>,
    /// Whether memory+swap is charged as well.
    pub memsw: bool,
    /// Counters, all free at first.
    pub cgroups: u32,
    /// Whether the CPUs count together what each cgroup did, and not each by itself.
    pub counts_together: bool,
    /// Chunks of the page-owner map.
    pub chunks: u32,
    /// Whether it is told when a huge page was put together.
    pub tells_collapses: bool,
    /// Whether pages have counts, which is one step more at each allocation and free.
    pub has_counts: bool,
    /// How far apart the numbers are of the tasks on two CPUs beside each other.
    pub tasks_apart: u32,
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
            tells_collapses: false,
            has_counts: false,
            tasks_apart: 1,
        }
    }
}

/// What the kernel has in maps. The cgroup with counter `index` has the id `cgroup_id(index)`.
pub struct Memory<W: NewWord> {
    /// How large it is.
    pub shape: Shape,
    /// The shared counters.
    pub counters: Vec<Counter<W>>,
    /// By CPU and slot.
    pub stocks: Vec<Vec<Stock<W>>>,
    /// By CPU and counter.
    pub shares: Vec<Vec<CgroupCpu<W>>>,
    /// The page-owner map.
    pub chunks: Vec<Box<Chunk<W::Entry>>>,
    /// The kernel's: 1 of a page of the first chunk that is in use, 0 of one that is free.
    pub counts: Option<Box<Chunk<W::Entry>>>,
    /// By key: index of the counter plus one.
    table: Vec<W>,
    generation: W,
    setting: W,
    collapses: Vec<W>,
    // What follows only records, and is no part of what a model checker explores.
    now: AtomicU64,
    events: Mutex<Vec<Event>>,
    losses: Vec<AtomicU64>,
}

/// Keys begin here, so that none passes for an owner or an index.
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
    /// It, as the programs on a CPU see it.
    pub fn cpu(&self, cpu: u32) -> Cpu<'_, W> {
        Cpu { memory: self, cpu }
    }

    /// A counter that there is.
    pub fn counter(&self, index: u32) -> &Counter<W> {
        &self.counters[index as usize]
    }

    /// A slot that there is.
    pub fn slot(&self, cpu: u32, slot: u32) -> &Stock<W> {
        &self.stocks[cpu as usize][slot as usize]
    }

    /// What a cgroup did on a CPU.
    pub fn share(&self, cpu: u32, index: u32) -> &CgroupCpu<W> {
        &self.shares[cpu as usize][index as usize]
    }

    /// The entry of a page frame inside the page-owner map.
    pub fn entry(&self, pfn: u64) -> &W::Entry {
        self.chunks[(pfn / u64::from(CHUNK_PAGES)) as usize].entry(pfn)
    }

    /// What was lost.
    pub fn loss(&self, loss: Loss) -> u64 {
        self.losses[loss as usize].load(SeqCst)
    }

    /// Has time pass, ns.
    pub fn advance(&self, ns: u64) {
        self.now.fetch_add(ns, SeqCst);
    }

    /// The events since the last call.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut *events)
    }
}
