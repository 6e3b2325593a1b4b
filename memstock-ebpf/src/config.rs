//! What the user half sets once, before load. Read-only data: the verifier knows the values and
//! drops the code they rule out.

use aya_ebpf::Global;
use memstock_common::{DEFAULT_BATCH, MAX_DEPTH};

/// Pages charged at once on a miss, 1..=1024.
#[unsafe(no_mangle)]
static BATCH: Global<u32> = Global::new(DEFAULT_BATCH);
/// Stock slots per CPU; a power of two.
#[unsafe(no_mangle)]
static SLOTS: Global<u32> = Global::new(1);
/// 1 to charge memory+swap as well.
#[unsafe(no_mangle)]
static MEMSW: Global<u32> = Global::new(0);
/// Not for setting: a constant that LLVM cannot use to unroll loops, but the verifier can.
#[unsafe(no_mangle)]
static DEPTH: Global<u32> = Global::new(MAX_DEPTH);

/// Pages charged at once on a miss.
#[inline(always)]
pub fn batch() -> u32 {
    BATCH.load()
}

/// Stock slots per CPU.
#[inline(always)]
pub fn slots() -> u32 {
    SLOTS.load()
}

/// Whether memory+swap is charged as well.
#[inline(always)]
pub fn memsw() -> bool {
    MEMSW.load() != 0
}

/// Bound of the walks up the hierarchy.
#[inline(always)]
pub fn max_depth() -> u32 {
    DEPTH.load()
}
