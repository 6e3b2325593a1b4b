//! What is rare, as functions that are called. The verifier looks at a global function once, whatever its arguments
//! are, and then knows of a call only that it gives a number; what is inlined, or a function of the object's own, it
//! follows anew on each way that leads there (commit 51c39bb1d5d1, Linux 5.6). So these take
//! numbers, no pointers, and look up again what their callers had.

use memstock_common::page;
use memstock_common::uncharge;

use crate::machine::Kernel;

/// [`uncharge::uncharge_rest`]. A global function has to return a number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn uncharge_rest(owner: u32, nr_pages: u32) -> u32 {
    uncharge::uncharge_rest(&Kernel, owner, nr_pages);
    0
}

/// [`page::charge_rest`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn charge_rest(owner: u32, nr_pages: u32) -> u32 {
    page::charge_rest(&Kernel, owner, nr_pages);
    0
}

/// [`page::replace_block`], as [`to_bits`](page::Replaced::to_bits).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn replace_block(pfn: u64, order: u32, new: u32) -> u64 {
    page::replace_block(&Kernel, pfn, order, new).to_bits()
}
