//! A world for the algorithm to work on: counters, stocks and the table of tracked cgroups, made
//! of whatever words a test brings (plain atomics, or model-checked ones).
//!
//! It stores, looks up and records. It must not decide anything: that is what is being tested.
#![allow(dead_code, reason = "each test binary uses its own part of the world")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use memstock_common::fault::{Consumed, consume_or_miss, miss};
use memstock_common::{
    CgroupCpu, Counter, Counters, Event, Identity, Loss, MAX_DEPTH, Machine, NO_INDEX, NO_LIMIT,
    PageCounter, Stock, StockWord, Word, charge, control, drain, slot_of, stock,
};

/// A word that a world can make.
pub trait NewWord: Word {
    fn new(value: u64) -> Self;

    /// Reads an entry of the table of tracked cgroups. A map look-up orders what the reader then
    /// does with the value after the update that it found, whatever a plain load does.
    fn look_up(&self) -> u64 {
        self.load()
    }
}

impl NewWord for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }
}

/// How large a world is, and what it is loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub cpus: u32,
    pub slots: u32,
    pub batch: u32,
    pub memsw: bool,
    /// Counters, all free at first.
    pub cgroups: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { cpus: 1, slots: 1, batch: 32, memsw: false, cgroups: 4 }
    }
}

/// The kernel maps. The cgroup with counter `index` has the owner `owner(index)`.
pub struct World<W> {
    pub shape: Shape,
    counters: Vec<Counter<W>>,
    stocks: Vec<Vec<Stock<W>>>,
    shares: Vec<Vec<CgroupCpu<W>>>,
    /// By owner: index of the counter plus one.
    table: Vec<W>,
    generation: W,
    // What follows only records, and is no part of what a model checker explores.
    now: AtomicU64,
    events: Mutex<Vec<Event>>,
    losses: Vec<AtomicU64>,
}

/// The id of the cgroup with counter `index`; its upper half must never matter.
pub const fn cgroup_id(index: u32) -> u64 {
    7 << 32 | owner(index) as u64
}

/// What the cgroup with counter `index` is called in packed words.
pub const fn owner(index: u32) -> u32 {
    index + 1
}

/// Arguments that register counter `index` under `parent` with a limit on memory only.
pub fn limited(index: u32, parent: u32, memory_limit: u64) -> control::Register {
    control::Register {
        index,
        cgroup_id: cgroup_id(index),
        parent,
        memory_limit,
        memsw_limit: NO_LIMIT,
    }
}

fn page_counter<W: NewWord>() -> PageCounter<W> {
    PageCounter { usage: W::new(0), watermark: W::new(0), failcnt: W::new(0) }
}

fn counter<W: NewWord>() -> Counter<W> {
    let zero = || W::new(0);
    Counter {
        memory: page_counter(),
        memsw: page_counter(),
        near_at: zero(),
        hit_at: zero(),
        memory_limit: zero(),
        memsw_limit: zero(),
        id: zero(),
        parent: zero(),
        depth: zero(),
        children: zero(),
        padding: [zero(), zero()],
    }
}

/// An empty slot.
pub fn empty_stock<W: NewWord>() -> Stock<W> {
    let zero = || W::new(0);
    Stock {
        word: zero(),
        identity: Identity { task: zero(), generation: zero(), owner: zero() },
        untracked: zero(),
        hits: zero(),
        settled: zero(),
        credit: zero(),
        misses: zero(),
        refills: zero(),
        drains: zero(),
    }
}

impl<W: NewWord> World<W> {
    pub fn new(shape: Shape) -> Self {
        let share = || CgroupCpu {
            hits: W::new(0),
            misses: W::new(0),
            singles: W::new(0),
            forced: W::new(0),
        };
        Self {
            shape,
            counters: (0..shape.cgroups).map(|_| counter()).collect(),
            stocks: (0..shape.cpus)
                .map(|_| (0..shape.slots).map(|_| empty_stock()).collect())
                .collect(),
            shares: (0..shape.cpus)
                .map(|_| (0..shape.cgroups).map(|_| share()).collect())
                .collect(),
            // Room for the name 0, which nobody has, and for one cgroup that is never tracked.
            table: (0..shape.cgroups + 2).map(|_| W::new(0)).collect(),
            generation: W::new(1),
            now: AtomicU64::new(1_000_000_000),
            events: Mutex::new(Vec::new()),
            losses: (0..Loss::COUNT).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// A world whose cgroups are one chain: counter 0 is the top, the last one the leaf.
    pub fn chain(shape: Shape) -> Self {
        let world = Self::new(shape);
        for index in 0..shape.cgroups {
            let parent = index.checked_sub(1).unwrap_or(NO_INDEX);
            world.add(index, parent);
        }
        world
    }

    pub fn cpu(&self, cpu: u32) -> Cpu<'_, W> {
        Cpu { world: self, cpu }
    }

    pub fn register(&self, args: control::Register) -> Result<u32, control::Refusal> {
        control::register(&self.cpu(0), args)
    }

    /// Registers counter `index` under `parent`, without limits.
    #[track_caller]
    pub fn add(&self, index: u32, parent: u32) {
        assert_eq!(self.register(limited(index, parent, NO_LIMIT)), Ok(0));
    }

    /// What the fault program does for a task of the cgroup named `owner`.
    pub fn fault(&self, cpu: u32, owner: u32) -> Consumed {
        let machine = self.cpu(cpu);
        let stock = self.slot(cpu, slot_of(owner, self.shape.slots));
        let generation = machine.generation();
        let consumed = consume_or_miss(stock, owner, generation);
        if consumed == Consumed::Miss {
            miss(&machine, stock, owner, generation);
        }
        consumed
    }

    /// Drains all slots of `cpu` that are cached for the subtree; run from CPU 0.
    pub fn drain(&self, cpu: u32, subtree: u32) -> u32 {
        self.stocks[cpu as usize]
            .iter()
            .map(|stock| drain::drain_stock(&self.cpu(0), stock, subtree))
            .sum()
    }

    pub fn uncharge(&self, index: u32, nr_pages: u64) {
        charge::uncharge(&self.cpu(0), index, nr_pages);
    }

    pub fn counter(&self, index: u32) -> &Counter<W> {
        &self.counters[index as usize]
    }

    pub fn slot(&self, cpu: u32, slot: u32) -> &Stock<W> {
        &self.stocks[cpu as usize][slot as usize]
    }

    pub fn share(&self, cpu: u32, index: u32) -> &CgroupCpu<W> {
        &self.shares[cpu as usize][index as usize]
    }

    pub fn usage(&self, index: u32) -> u64 {
        self.counter(index).memory.usage.load()
    }

    pub fn watermark(&self, index: u32) -> u64 {
        self.counter(index).memory.watermark.load()
    }

    pub fn failcnt(&self, index: u32) -> u64 {
        self.counter(index).memory.failcnt.load()
    }

    /// All slots of all CPUs.
    pub fn slots(&self) -> impl Iterator<Item = &Stock<W>> {
        self.stocks.iter().flatten()
    }

    pub fn stocked_for(&self, owner: u32) -> u64 {
        let words = self.slots().map(|stock| StockWord(stock.word.load()));
        words.filter(|word| word.owner() == owner).map(|word| u64::from(word.charged())).sum()
    }

    pub fn stocked(&self) -> u64 {
        self.slots().map(|stock| u64::from(StockWord(stock.word.load()).charged())).sum()
    }

    /// Hits of a cgroup by the reader's rule: what is settled, and what its slots have not yet.
    pub fn hits(&self, index: u32) -> u64 {
        let settled: u64 =
            self.shares.iter().map(|shares| shares[index as usize].hits.load()).sum();
        let credited = self.slots().filter(|stock| stock.creditor() == index);
        settled + credited.map(|s| s.hits.load().wrapping_sub(s.settled.load())).sum::<u64>()
    }

    /// Sums one statistic of a cgroup over the CPUs.
    pub fn sum(&self, index: u32, of: impl Fn(&CgroupCpu<W>) -> &W) -> u64 {
        self.shares.iter().map(|shares| of(&shares[index as usize]).load()).sum()
    }

    pub fn loss(&self, loss: Loss) -> u64 {
        self.losses[loss as usize].load(SeqCst)
    }

    pub fn advance(&self, ns: u64) {
        self.now.fetch_add(ns, SeqCst);
    }

    /// The events since the last call.
    pub fn events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().expect("no panic while recording"))
    }

    /// The law of conservation: what is charged is owned or stocked, below every counter.
    ///
    /// `owned` are the pages in use, by counter.
    #[track_caller]
    pub fn assert_conserved(&self, owned: &[u64]) {
        for index in (0..self.shape.cgroups).filter(|&i| self.counter(i).id.load() != 0) {
            let below = (0..self.shape.cgroups).filter(|&i| self.below(i, index));
            let due: u64 = below.map(|i| owned[i as usize] + self.stocked_for(owner(i))).sum();
            assert_eq!(self.usage(index), due, "memory of counter {index}");
            let memsw = if self.shape.memsw { due } else { 0 };
            assert_eq!(self.counter(index).memsw.usage.load(), memsw, "memsw of counter {index}");
        }
        let Shape { cpus, slots, batch, .. } = self.shape;
        assert!(self.stocked() <= u64::from(cpus * slots * batch), "too much is stocked");
    }

    fn below(&self, index: u32, ancestor: u32) -> bool {
        let parent = |&at: &u32| Some(self.counter(at).parent()).filter(|&up| up != NO_INDEX);
        std::iter::successors(Some(index), parent).any(|at| at == ancestor)
    }
}

/// The world as the programs on one CPU see it.
pub struct Cpu<'a, W> {
    pub world: &'a World<W>,
    pub cpu: u32,
}

impl<W: NewWord> Counters for Cpu<'_, W> {
    type Word = W;

    fn counter(&self, index: u32) -> Option<&Counter<W>> {
        self.world.counters.get(index as usize)
    }
    fn memsw(&self) -> bool {
        self.world.shape.memsw
    }
    fn max_depth(&self) -> u32 {
        MAX_DEPTH
    }
}

impl<W: NewWord> Machine for Cpu<'_, W> {
    fn tracked(&self, owner: u32) -> Option<u32> {
        self.world.table.get(owner as usize)?.look_up().checked_sub(1).map(|index| index as u32)
    }
    fn track(&self, owner: u32, index: u32) -> bool {
        let entry = self.world.table.get(owner as usize);
        entry.is_some_and(|entry| entry.replace(0, stock::credit_for(index)))
    }
    fn untrack(&self, owner: u32) {
        if let Some(entry) = self.world.table.get(owner as usize) {
            entry.swap(0);
        }
    }
    fn generation(&self) -> u64 {
        self.world.generation.load()
    }
    fn next_generation(&self) {
        self.world.generation.fetch_add(1);
    }
    fn cgroup_cpu(&self, index: u32) -> Option<&CgroupCpu<W>> {
        self.cgroup_cpu_of(index, self.cpu)
    }
    fn stock_of(&self, cpu: u32, slot: u32) -> Option<&Stock<W>> {
        self.world.stocks.get(cpu as usize)?.get(slot as usize)
    }
    fn cgroup_cpu_of(&self, index: u32, cpu: u32) -> Option<&CgroupCpu<W>> {
        self.world.shares.get(cpu as usize)?.get(index as usize)
    }
    fn batch(&self) -> u32 {
        self.world.shape.batch
    }
    fn now(&self) -> u64 {
        self.world.now.load(SeqCst)
    }
    fn emit(&self, event: &Event) {
        self.world.events.lock().expect("no panic while recording").push(*event);
    }
    fn lose(&self, loss: Loss, count: u64) {
        self.world.losses[loss as usize].fetch_add(count, SeqCst);
    }
}
