//! Huge pages, and other allocations of several pages at once, that do not fit under a limit
//! (`docs/adr/0028-huge-pages-at-a-limit.md`).

use crate::charge::walk;
use crate::{Counter, Machine, NO_INDEX, Over, Word};

/// A counter whose allowance has reached this gets no more: 8 MiB with pages of 4 KiB.
pub const MAX_HUGE: u64 = 2048;

/// Charges `nr_pages` that were allocated at once and do not fit, provided that one of them fits: the kernel would then
/// fall back to one small page. That one is charged normally, the others by force, and they are allowed above the
/// limits ([`allow_huge`](Counter::allow_huge)).
///
/// # Errors
/// The nearest ancestor under whose limit not even one page fits; nothing is charged then.
#[inline(always)]
pub fn charge_huge<M: Machine>(machine: &M, leaf: u32, nr_pages: u64) -> Result<(), Over> {
    machine.try_charge(leaf, 1)?;
    let others = nr_pages.saturating_sub(1);
    walk(machine, leaf, NO_INDEX, |c| {
        c.charge_memory(others);
        if machine.memsw() {
            c.memsw.charge(others);
        }
        c.allow_huge(others, machine.memsw());
        true
    });
    Ok(())
}

impl<W: Word> Counter<W> {
    /// Allows `nr_pages` above the limits if the usage exceeds them: the pages of a huge page, all but the one that
    /// fitted, that were just charged by force.
    ///
    /// Where a huge page does not fit the kernel takes a small one, and kills nobody. Nobody can say which of a huge
    /// page's small pages it would have taken in the end (those that are touched); so single pages are charged as if
    /// they were among them, until they do not fit without the allowance. [`MAX_HUGE`] bounds it.
    #[inline(always)]
    pub fn allow_huge(&self, nr_pages: u64, memsw: bool) {
        let allowed = self.huge.load();
        let is_above = |usage: &W, limit: &W| usage.load() > limit.load().saturating_add(allowed);
        let is_needed = is_above(&self.memory.usage, &self.memory_limit)
            || memsw && is_above(&self.memsw.usage, &self.memsw_limit);
        if is_needed && allowed < MAX_HUGE {
            self.huge.fetch_add(nr_pages);
            // An uncharge since that check had no allowance to reset.
            self.forget_huge(memsw);
        }
    }

    /// Resets the allowance if the usage is not above the limits, as after an uncharge. Always returns false, for a
    /// caller that goes on to refuse.
    #[inline(always)]
    pub fn forget_huge(&self, memsw: bool) -> bool {
        let allowed = self.huge.load();
        // A huge page is charged before it is allowed for, so an allowance seen here has been charged. The usage must
        // be read later than the allowance, and plain loads are not ordered.
        let fits = |usage: &W, limit: &W| usage.fetch_add(0) <= limit.load();
        if allowed != 0
            && fits(&self.memory.usage, &self.memory_limit)
            && (!memsw || fits(&self.memsw.usage, &self.memsw_limit))
        {
            self.huge.replace(allowed, 0);
        }
        false
    }
}
