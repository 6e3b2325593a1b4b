//! Owns the giving of pages to cgroups and the taking of them, through the control programs of the kernel
//! half: window by window, and nothing to a cgroup that was removed meanwhile.

use std::collections::BTreeMap;

use anyhow::Result;
use memstock_common::adopt::{WINDOW_PAGES, Window};

use crate::engine::Engine;
use crate::engine::control::Control;
use crate::kernel_cgroup::{Look, Tracked};

/// Numbers of pages by counter.
pub(crate) type Tally = BTreeMap<u32, u64>;

/// What was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Pages charged to a cgroup.
    pub(crate) adopted: Tally,
    /// Pages taken from a cgroup, those among them that had just been adopted.
    pub(crate) disowned: Tally,
}

impl Moved {
    pub(crate) fn add(&mut self, other: &Self) {
        for (all, more) in
            [(&mut self.adopted, &other.adopted), (&mut self.disowned, &other.disowned)]
        {
            for (&index, nr_pages) in more {
                *all.entry(index).or_default() += nr_pages;
            }
        }
    }
}

/// Moves pages between nobody and the cgroups that are tracked.
pub(crate) struct Transfer<'a> {
    engine: &'a Engine,
    tracked: &'a Tracked,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(engine: &'a Engine, tracked: &'a Tracked) -> Self {
        Self { engine, tracked }
    }

    /// Charges pages that nobody owns, ascending by page frame number, to the counters with them.
    pub(crate) fn adopt(&self, pages: &[(u64, u32)]) -> Result<Tally> {
        self.act(pages, Control::adopt)
    }

    /// Marks pages of these counters, so that [`disown`](Self::disown) takes them as long as they are
    /// neither allocated nor freed.
    pub(crate) fn doubt(&self, pages: &[(u64, u32)]) -> Result<Tally> {
        self.act(pages, Control::doubt)
    }

    /// Takes the marked ones of these pages from these counters.
    pub(crate) fn disown(&self, pages: &[(u64, u32)]) -> Result<Tally> {
        self.act(pages, Control::disown)
    }

    /// Adopts pages that the kernel was seen to charge to the memory cgroups that stand for these
    /// counters, and gives back those for which that is not so any more.
    pub(crate) fn adopt_as_kernel(&self, look: &Look, pages: &[(u64, u32)]) -> Result<Moved> {
        let adopted = self.adopt(pages)?;
        if adopted.is_empty() {
            return Ok(Moved::default());
        }
        let pfns: Vec<u64> = pages.iter().map(|&(pfn, _)| pfn).collect();
        let again = look.again(&pfns)?;
        let wrong: Vec<(u64, u32)> = again
            .iter()
            .zip(pages)
            .filter(|(seen, (_, index))| look.map().counter(seen.number) != Some(*index))
            .map(|(_, page)| *page)
            .collect();
        Ok(Moved { adopted, disowned: self.disown(&wrong)? })
    }

    fn act(
        &self,
        pages: &[(u64, u32)],
        action: fn(&Control, Window) -> Result<u32>,
    ) -> Result<Tally> {
        let mut tally = Tally::new();
        for window in windows(pages) {
            // Its index may be another cgroup's by now.
            if !self.is_there(window.index)? {
                continue;
            }
            match action(self.engine.control(), window) {
                Ok(0) => {}
                Ok(nr_pages) => *tally.entry(window.index).or_default() += u64::from(nr_pages),
                Err(_) if !self.is_there(window.index)? => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tally)
    }

    fn is_there(&self, index: u32) -> Result<bool> {
        let known = self.tracked.counters().get(&index).map(|counter| counter.id);
        Ok(known == Some(self.engine.counter(index)?.id))
    }
}

/// Pages, ascending, as the control programs take them: a window for each stretch and each counter.
fn windows(pages: &[(u64, u32)]) -> impl Iterator<Item = Window> {
    let size = u64::from(WINDOW_PAGES);
    pages.chunk_by(move |a, b| a.0 / size == b.0 / size).flat_map(move |pages| {
        let mut windows = BTreeMap::<u32, Window>::new();
        for &(pfn, index) in pages {
            let first_pfn = pfn / size * size;
            let empty = Window { index, first_pfn, ..Window::default() };
            windows.entry(index).or_insert(empty).add(pfn);
        }
        windows.into_values()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_and_of_one_counter() {
        let pages = [(511, 1), (512, 1), (513, 2), (514, 1), (1023, 2), (5120, 3)];
        let found: Vec<_> = windows(&pages).map(|w| (w.index, w.first_pfn, w.nr_pages())).collect();
        assert_eq!(found, [(1, 0, 1), (1, 512, 2), (2, 512, 2), (3, 5120, 1)]);
        assert_eq!(windows(&[]).count(), 0);
        let last = windows(&pages).next().unwrap();
        assert_eq!(last.pages[7], 1 << 63);
    }

    #[test]
    fn what_was_moved_adds_up() {
        let one = Moved { adopted: [(1, 2)].into(), disowned: [(1, 1)].into() };
        let mut sum = one.clone();
        sum.add(&Moved { adopted: [(1, 3), (2, 1)].into(), ..Moved::default() });
        assert_eq!(sum, Moved { adopted: [(1, 5), (2, 1)].into(), ..one });
    }
}
