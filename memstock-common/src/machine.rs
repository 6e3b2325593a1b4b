//! Parts of the algorithm that can be functions of their own, so that the BPF verifier checks each once instead of at
//! every call (`docs/adr/0021-rare-parts-are-global-functions.md`). Outside BPF they are called directly.

use crate::charge::{change_file, charge_forced, try_charge, uncharge};
use crate::file::{claim, file_changed, mark_file};
use crate::huge::charge_huge;
use crate::page::{Replaced, charge_rest, replace_block, uncharge_run};
use crate::uncharge::uncharge_rest;
use crate::{Over, World};

/// A [`World`], on the CPU that runs the algorithm, together with the out-of-line parts of the algorithm.
pub trait Machine: World {
    /// [`uncharge_rest`].
    fn uncharge_rest(&self, owner: u32, nr_pages: u32)
    where
        Self: Sized,
    {
        uncharge_rest(self, owner, nr_pages);
    }

    /// [`uncharge_run`].
    fn uncharge_run(&self, owner: u32, nr_pages: u32, nr_file: u32)
    where
        Self: Sized,
    {
        uncharge_run(self, owner, nr_pages, nr_file);
    }

    /// [`uncharge`].
    fn uncharge(&self, leaf: u32, nr_pages: u32)
    where
        Self: Sized,
    {
        uncharge(self, leaf, nr_pages.into());
    }

    /// [`try_charge`].
    ///
    /// # Errors
    /// As [`try_charge`].
    fn try_charge(&self, leaf: u32, nr_pages: u32) -> Result<(), Over>
    where
        Self: Sized,
    {
        try_charge(self, leaf, nr_pages.into())
    }

    /// [`charge_huge`].
    ///
    /// # Errors
    /// As [`charge_huge`].
    fn charge_huge(&self, leaf: u32, nr_pages: u32) -> Result<(), Over>
    where
        Self: Sized,
    {
        charge_huge(self, leaf, nr_pages.into())
    }

    /// [`charge_forced`].
    fn charge_forced(&self, leaf: u32, nr_pages: u32)
    where
        Self: Sized,
    {
        charge_forced(self, leaf, nr_pages.into());
    }

    /// [`charge_rest`].
    fn charge_rest(&self, owner: u32, nr_pages: u32) -> u32
    where
        Self: Sized,
    {
        charge_rest(self, owner, nr_pages)
    }

    /// [`change_file`].
    fn change_file(&self, leaf: u32, change: i32)
    where
        Self: Sized,
    {
        change_file(self, leaf, change);
    }

    /// [`file_changed`].
    #[inline(always)]
    fn file_changed(&self, owner: u32, change: i32)
    where
        Self: Sized,
    {
        file_changed(self, owner, change);
    }

    /// [`mark_file`].
    fn mark_file(&self, pfn: u64, nr_pages: u32, owner: u32) -> u32
    where
        Self: Sized,
    {
        mark_file(self, pfn, nr_pages, owner)
    }

    /// [`claim`].
    fn claim(&self, pfn: u64, nr_pages: u32, owner: u32)
    where
        Self: Sized,
    {
        claim(self, pfn, nr_pages, owner);
    }

    /// [`replace_block`].
    fn replace_block(&self, pfn: u64, order: u32, new: u32) -> Replaced
    where
        Self: Sized,
    {
        replace_block(self, pfn, order, new)
    }
}
