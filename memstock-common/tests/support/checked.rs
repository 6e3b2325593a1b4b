//! Loom's atomics as words, and what its models share.
//!
//! The memory model is Linux's for BPF programs: a read-modify-write is fully ordered, a plain
//! load or store is ordered by nothing. Models of two threads are explored exhaustively. Those of
//! three threads would take up to a minute, so they bound the preemptions.
#![allow(dead_code, reason = "each test binary uses its own part")]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;
use memstock_common::{Over, Word};

use crate::support::{NewWord, Shape, World};

pub struct Checked(AtomicU64);

impl Checked {
    /// `smp_mb()` before and after, as in the kernel's value-returning atomics.
    fn ordered<T>(&self, operation: impl FnOnce(&AtomicU64) -> T) -> T {
        fence(Ordering::SeqCst);
        let result = operation(&self.0);
        fence(Ordering::SeqCst);
        result
    }
}

impl Word for Checked {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
    fn fetch_add(&self, value: u64) -> u64 {
        self.ordered(|word| word.fetch_add(value, Ordering::SeqCst))
    }
    fn fetch_sub(&self, value: u64) -> u64 {
        self.ordered(|word| word.fetch_sub(value, Ordering::SeqCst))
    }
    fn swap(&self, value: u64) -> u64 {
        self.ordered(|word| word.swap(value, Ordering::SeqCst))
    }
    fn replace(&self, current: u64, new: u64) -> bool {
        use Ordering::SeqCst;
        self.ordered(|word| word.compare_exchange(current, new, SeqCst, SeqCst).is_ok())
    }
}

impl NewWord for Checked {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }
    fn look_up(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

pub type Model = World<Checked>;

/// Explores `model` with at most three involuntary switches: enough for each of three threads to
/// be interrupted once, at any step.
pub fn explore_bounded(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

pub fn shape(cgroups: u32, batch: u32) -> Shape {
    Shape { cgroups, batch, ..Shape::default() }
}

/// Runs `aside` beside `main`.
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
