//! Huge pages, and other allocations of several pages at once, that do not fit under a limit
//! (`docs/adr/0028-huge-pages-at-a-limit.md`).

use crate::charge::walk;
use crate::{Counter, Machine, NO_INDEX, Over, Word};

/// A counter that allows so many pages allows nothing more: 8 MiB where pages have 4 KiB.
pub const MOST_HUGE: u64 = 2048;

/// Charges `nr_pages` that were allocated at once, and do not fit, if one of them does, as the kernel would then take
/// one: that one as any other, the others by force, as far as they may be above the limits
/// ([`allow_huge`](Counter::allow_huge)).
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
    /// Allows `nr_pages` above the limits if it takes that: they were charged by force just now, all of a huge page but one,
    /// which did fit.
    ///
    /// The kernel takes a small page where a huge one does not fit, and kills nobody. Which of a huge page's small ones it
    /// would have taken in the end, those that are touched, nobody can say; so single pages are charged as if it were one
    /// of them, until they do not fit without it. That cannot go on for ever: see [`MOST_HUGE`].
    #[inline(always)]
    pub fn allow_huge(&self, nr_pages: u64, memsw: bool) {
        let allowed = self.huge.load();
        let is_above = |usage: &W, limit: &W| usage.load() > limit.load().saturating_add(allowed);
        let is_needed = is_above(&self.memory.usage, &self.memory_limit)
            || memsw && is_above(&self.memsw.usage, &self.memsw_limit);
        if is_needed && allowed < MOST_HUGE {
            self.huge.fetch_add(nr_pages);
            // What was uncharged since it was found to be needed had nothing to forget.
            self.forget_huge(memsw);
        }
    }

    /// Allows nothing any more if the usage is not above the limits, as it may be after pages were uncharged. Gives false,
    /// for whoever goes on to refuse.
    #[inline(always)]
    pub fn forget_huge(&self, memsw: bool) -> bool {
        let allowed = self.huge.load();
        // A huge page is charged before it is allowed for. So what is seen to be allowed is charged, and this must be read
        // later: plain loads are ordered by nothing.
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
