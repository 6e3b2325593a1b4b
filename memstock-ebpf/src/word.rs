//! Words of map memory, changed with BPF's atomic instructions.

use core::cell::UnsafeCell;
use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd, atomic_xchg};

use memstock_common::{Entry, Word};

/// A word of a map value. The BPF target declares no compare-and-swap, so `core::sync::atomic` has only load and store;
/// the intrinsics compile to `atomic_fetch_add`, `xchg_64` and `cmpxchg_64` (instruction set v3).
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct MapWord(UnsafeCell<u64>);

impl MapWord {
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }
}

// SAFETY: every access goes through the volatile loads and stores and the atomics below.
unsafe impl Sync for MapWord {}

const SEQ_CST: AtomicOrdering = AtomicOrdering::SeqCst;

impl Word for MapWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: the cell is valid and aligned; a 64-bit BPF load is single-copy atomic.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: as for `load`.
        unsafe { self.0.get().write_volatile(value) }
    }

    #[inline(always)]
    fn fetch_add(&self, value: u64) -> u64 {
        // SAFETY: the cell is valid and aligned for an atomic access.
        unsafe { atomic_xadd::<u64, u64, SEQ_CST>(self.0.get(), value) }
    }

    #[inline(always)]
    fn fetch_sub(&self, value: u64) -> u64 {
        // BPF has no atomic subtract: add the two's complement.
        self.fetch_add(value.wrapping_neg())
    }

    #[inline(always)]
    fn swap(&self, value: u64) -> u64 {
        // SAFETY: the cell is valid and aligned for an atomic access.
        unsafe { atomic_xchg::<u64, SEQ_CST>(self.0.get(), value) }
    }

    #[inline(always)]
    fn replace(&self, current: u64, new: u64) -> bool {
        // SAFETY: the cell is valid and aligned for an atomic access.
        unsafe { atomic_cxchg::<u64, SEQ_CST, SEQ_CST>(self.0.get(), current, new).1 }
    }
}

/// An entry of the page-owner map.
#[repr(transparent)]
pub struct MapEntry(UnsafeCell<u32>);

// SAFETY: every access goes through the volatile load and the atomics below.
unsafe impl Sync for MapEntry {}

impl Entry for MapEntry {
    #[inline(always)]
    fn load(&self) -> u32 {
        // SAFETY: the cell is valid and aligned; a 32-bit BPF load is single-copy atomic.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    fn swap(&self, value: u32) -> u32 {
        // SAFETY: the cell is valid and aligned for an atomic access.
        unsafe { atomic_xchg::<u32, SEQ_CST>(self.0.get(), value) }
    }

    #[inline(always)]
    fn replace(&self, current: u32, new: u32) -> bool {
        // SAFETY: the cell is valid and aligned for an atomic access.
        unsafe { atomic_cxchg::<u32, SEQ_CST, SEQ_CST>(self.0.get(), current, new).1 }
    }
}
