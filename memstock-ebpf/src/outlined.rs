//! Rarely run parts, as functions that are called. The verifier checks a global function once, for any arguments, and
//! then only knows that a call returns a number; inlined code and static functions it follows anew on each path that
//! leads to them (commit 51c39bb1d5d1, Linux 5.6). So these functions take numbers, no pointers, and repeat their
//! callers' look-ups.

use memstock_common::owner_cache::Task;
use memstock_common::slots::stock_for;
use memstock_common::{NOBODY, charge, fault, file, huge, page, uncharge};

use crate::charged::Reporter;
use crate::machine::Kernel;
use crate::memory;
use crate::payer::{Payer, asked_owner};
use crate::record;

/// The owner charged for an allocation of the current task, if this CPU does not remember it; `registers` is where it
/// faulted, 0 if not known; `pays` is a [`Payer`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask_owner(registers: u64, pays: u32) -> u32 {
    let task = if registers == 0 { Task::Current } else { Task::Registers(registers) };
    let pays = if pays == Payer::Task as u32 { Payer::Task } else { Payer::Memory };
    asked_owner(task, pays)
}

/// [`memory::owner_of`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn owner_of_memory(mm: u64) -> u32 {
    memory::owner_of(mm).unwrap_or(NOBODY)
}

/// [`fault::count_unserved`]. A global function has to return a number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_unserved(owner: u32) -> u32 {
    if let Some(stock) = stock_for(&Kernel, owner) {
        fault::count_unserved(&Kernel, stock, owner);
    }
    0
}

/// [`uncharge::uncharge_rest`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn uncharge_rest(owner: u32, nr_pages: u32) -> u32 {
    uncharge::uncharge_rest(&Kernel, owner, nr_pages);
    0
}

/// [`page::uncharge_run`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn uncharge_run(owner: u32, nr_pages: u32, nr_file: u32) -> u32 {
    page::uncharge_run(&Kernel, owner, nr_pages, nr_file);
    0
}

/// [`charge::uncharge`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn uncharge(leaf: u32, nr_pages: u32) -> u32 {
    charge::uncharge(&Kernel, leaf, nr_pages.into());
    0
}

/// [`charge::try_charge`], as [`to_bits`](charge::Over::to_bits).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn try_charge(leaf: u32, nr_pages: u32) -> u64 {
    charge::Over::to_bits(charge::try_charge(&Kernel, leaf, nr_pages.into()))
}

/// [`huge::charge_huge`], likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn charge_huge(leaf: u32, nr_pages: u32) -> u64 {
    charge::Over::to_bits(huge::charge_huge(&Kernel, leaf, nr_pages.into()))
}

/// [`charge::charge_forced`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn charge_forced(leaf: u32, nr_pages: u32) -> u32 {
    charge::charge_forced(&Kernel, leaf, nr_pages.into());
    0
}

/// [`page::charge_rest`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn charge_rest(owner: u32, nr_pages: u32) -> u32 {
    page::charge_rest(&Kernel, owner, nr_pages)
}

/// [`charge::change_file`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn change_file(leaf: u32, change: i32) -> u32 {
    charge::change_file(&Kernel, leaf, change);
    0
}

/// [`file::mark_file`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mark_file(pfn: u64, nr_pages: u32, owner: u32) -> u32 {
    file::mark_file(&Kernel, pfn, nr_pages, owner)
}

/// [`file::claim`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn claim(pfn: u64, nr_pages: u32, owner: u32) -> u32 {
    file::claim(&Kernel, pfn, nr_pages, owner);
    0
}

/// [`record::report_access`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_access(kind: u32, mapping: u64, block: u64, pages: u32) -> u32 {
    record::report_access(kind, mapping, block, pages).is_some().into()
}

/// [`page::replace_block`], as [`to_bits`](page::Replaced::to_bits).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn replace_block(pfn: u64, order: u32, new: u32) -> u64 {
    page::replace_block(&Kernel, pfn, order, new).to_bits()
}

/// The same, on the page-owner map of `charged`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn replace_charged(pfn: u64, order: u32, new: u32) -> u64 {
    page::replace_block(&Reporter, pfn, order, new).to_bits()
}
