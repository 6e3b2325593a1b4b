//! Loom's atomics as words and as entries of the owner map. Each model is explored twice.
//!
//! First with memory *as weak as Linux's* for BPF programs: a read-modify-write is fully ordered, a plain load or store
//! is not ordered at all. But loom treats accesses on either side of two threads' fences as ordered, and never tries
//! the reverse. So the model is explored again *step by step*: each access reads the last value written, and every
//! order of the accesses to a word is tried, with a bounded number of preemptions.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::cell::Cell;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;
use memstock_common::{Entry, NOBODY, Over, Word};

use crate::support::{NewEntry, NewWord, Shape, World};

thread_local! {
    /// Loom runs all threads of a model on the thread that explores it.
    static IS_WEAK: Cell<bool> = const { Cell::new(true) };
}

/// `smp_mb()` before and after, as in the kernel's value-returning atomics. Step by step, everything is ordered.
fn ordered<T>(operation: impl FnOnce() -> T) -> T {
    if !IS_WEAK.get() {
        return operation();
    }
    fence(Ordering::SeqCst);
    let result = operation();
    fence(Ordering::SeqCst);
    result
}

pub struct Checked(AtomicU64);

impl Checked {
    /// Step by step a load is a read-modify-write, because loom makes only those read the last value.
    fn read(&self, ordering: Ordering) -> u64 {
        if IS_WEAK.get() { self.0.load(ordering) } else { self.0.fetch_add(0, Ordering::SeqCst) }
    }
}

impl Word for Checked {
    fn load(&self) -> u64 {
        self.read(Ordering::Relaxed)
    }
    fn store(&self, value: u64) {
        if IS_WEAK.get() {
            self.0.store(value, Ordering::Relaxed);
        } else {
            self.0.swap(value, Ordering::SeqCst);
        }
    }
    fn fetch_add(&self, value: u64) -> u64 {
        ordered(|| self.0.fetch_add(value, Ordering::SeqCst))
    }
    fn fetch_sub(&self, value: u64) -> u64 {
        ordered(|| self.0.fetch_sub(value, Ordering::SeqCst))
    }
    fn swap(&self, value: u64) -> u64 {
        ordered(|| self.0.swap(value, Ordering::SeqCst))
    }
    fn replace(&self, current: u64, new: u64) -> bool {
        use Ordering::SeqCst;
        ordered(|| self.0.compare_exchange(current, new, SeqCst, SeqCst).is_ok())
    }
}

impl NewWord for Checked {
    type Entry = CheckedEntry;

    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }
    fn look_up(&self) -> u64 {
        self.read(Ordering::Acquire)
    }
}

/// How many pages of a chunk, the first ones, are explored. The others are plain memory, which spares each execution a
/// thousand checked atomics.
pub const MODEL_PAGES: u32 = 4;

pub enum CheckedEntry {
    Explored(AtomicU32),
    Plain(std::sync::atomic::AtomicU32),
}

impl Entry for CheckedEntry {
    fn load(&self) -> u32 {
        match self {
            Self::Explored(entry) if IS_WEAK.get() => entry.load(Ordering::Relaxed),
            Self::Explored(entry) => entry.fetch_add(0, Ordering::SeqCst),
            Self::Plain(entry) => Entry::load(entry),
        }
    }
    fn swap(&self, value: u32) -> u32 {
        match self {
            Self::Explored(entry) => ordered(|| entry.swap(value, Ordering::SeqCst)),
            Self::Plain(entry) => Entry::swap(entry, value),
        }
    }
    fn replace(&self, current: u32, new: u32) -> bool {
        use Ordering::SeqCst;
        match self {
            Self::Explored(entry) => {
                ordered(|| entry.compare_exchange(current, new, SeqCst, SeqCst).is_ok())
            }
            Self::Plain(entry) => Entry::replace(entry, current, new),
        }
    }
}

impl NewEntry for CheckedEntry {
    fn new(at: u32) -> Self {
        if at < MODEL_PAGES {
            Self::Explored(AtomicU32::new(NOBODY))
        } else {
            Self::Plain(std::sync::atomic::AtomicU32::new(NOBODY))
        }
    }
}

pub type Model = World<Checked>;

/// Most preemptions explored step by step.
const SWITCHES: usize = 3;

/// Explores a model of two threads, with all effects of weak memory, and step by step.
pub fn explore(model: impl Fn() + Sync + Send + 'static) {
    explore_switching(None, model);
}

/// Explores a model of three threads with at most three preemptions, which is enough to preempt each thread once at any
/// step. Without a bound it would take minutes.
pub fn explore_bounded(model: impl Fn() + Sync + Send + 'static) {
    explore_switching(Some(3), model);
}

/// Explores a model of two threads step by step only, for code in which reordering of two plain loads gives a wrong but
/// harmless result.
pub fn explore_steps(model: impl Fn() + Sync + Send + 'static) {
    explore_each(&[(false, Some(SWITCHES))], model);
}

fn explore_switching(weak: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    explore_each(&[(true, weak), (false, Some(SWITCHES))], model);
}

fn explore_each(ways: &[(bool, Option<usize>)], model: impl Fn() + Sync + Send + 'static) {
    let model = std::sync::Arc::new(model);
    for &(is_weak, switches) in ways {
        IS_WEAK.set(is_weak);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = switches;
        let model = std::sync::Arc::clone(&model);
        builder.check(move || model());
    }
    IS_WEAK.set(true);
}

pub fn shape(cgroups: u32, batch: u32) -> Shape {
    Shape { cgroups, batch, ..Shape::default() }
}

/// Runs `aside` concurrently with `main`.
pub fn beside<T: 'static, U>(
    world: &Arc<Model>,
    aside: impl FnOnce(&Model) -> T + 'static,
    main: impl FnOnce(&Model) -> U,
) -> (T, U) {
    let other = Arc::clone(world);
    let aside = thread::spawn(move || aside(&other));
    let result = main(world);
    (aside.join().expect("a checked thread does not panic"), result)
}

/// 1 if the charge was granted.
pub fn is_charged(result: Result<(), Over>) -> u64 {
    u64::from(result.is_ok())
}
