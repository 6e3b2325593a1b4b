//! Gives pages to cgroups and takes them, through the control programs of the kernel half: window by window, and
//! nothing to a cgroup that was removed meanwhile.

use std::collections::BTreeMap;

use anyhow::Result;
use memstock_common::adopt::{WINDOW_PAGES, Window};

use crate::engine::Engine;
use crate::engine::control::Control;
use crate::engine::kernel_cgroup::{PageScan, Tracked};

/// Numbers of pages by counter.
pub(crate) type Tally = BTreeMap<u32, u64>;

/// What was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Pages charged to a cgroup.
    pub(crate) adopted: Tally,
    /// Pages taken from a cgroup, including those just adopted.
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

/// A page, and the counter of the cgroup that has it or is to get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) pfn: u64,
    pub(crate) index: u32,
    /// Whether it is reclaimable page cache; ignored when pages are taken away.
    pub(crate) is_file: bool,
}

/// Moves pages between no owner and the tracked cgroups.
pub(crate) struct Transfer<'a> {
    engine: &'a Engine,
    tracked: &'a Tracked,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(engine: &'a Engine, tracked: &'a Tracked) -> Self {
        Self { engine, tracked }
    }

    /// Charges pages without an owner, ascending by page frame number, to their counters.
    pub(crate) fn adopt(&self, pages: &[Page]) -> Result<Tally> {
        self.act(pages, Control::adopt)
    }

    /// Marks pages of these counters, so that [`disown`](Self::disown) takes them if they are neither allocated nor
    /// freed in between.
    pub(crate) fn doubt(&self, pages: &[Page]) -> Result<Tally> {
        self.act(pages, Control::doubt)
    }

    /// Takes those of these pages that are marked from their counters.
    pub(crate) fn disown(&self, pages: &[Page]) -> Result<Tally> {
        self.act(pages, Control::disown)
    }

    /// Adopts pages that the kernel charged to the counterparts of these counters, and gives back those for which that
    /// is no longer so.
    pub(crate) fn adopt_as_kernel(&self, scan: &PageScan, pages: &[Page]) -> Result<Moved> {
        let adopted = self.adopt(pages)?;
        if adopted.is_empty() {
            return Ok(Moved::default());
        }
        let pfns: Vec<u64> = pages.iter().map(|page| page.pfn).collect();
        let again = scan.again(&pfns)?;
        let wrong: Vec<Page> = again
            .iter()
            .zip(pages)
            .filter(|(seen, page)| scan.map().counter(seen.number) != Some(page.index))
            .map(|(_, page)| *page)
            .collect();
        Ok(Moved { adopted, disowned: self.disown(&wrong)? })
    }

    fn act(&self, pages: &[Page], action: fn(&Control, Window) -> Result<u32>) -> Result<Tally> {
        let mut tally = Tally::new();
        for window in windows(pages) {
            // Its index may have been reused.
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
        let known = self.tracked.counters().get(index).map(|counter| counter.id);
        Ok(known == Some(self.engine.counter(index)?.id))
    }
}

/// Groups ascending pages as the control programs take them: one window for each stretch and counter, separately for
/// page cache.
pub(crate) fn windows(pages: &[Page]) -> impl Iterator<Item = Window> {
    let size = u64::from(WINDOW_PAGES);
    pages.chunk_by(move |a, b| a.pfn / size == b.pfn / size).flat_map(move |pages| {
        let mut windows = BTreeMap::<(u32, bool), Window>::new();
        for &Page { pfn, index, is_file } in pages {
            let first_pfn = pfn / size * size;
            let is_cache = is_file.into();
            let empty = Window { index, first_pfn, is_file: is_cache, ..Window::default() };
            windows.entry((index, is_file)).or_insert(empty).add(pfn);
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
        let pages = pages.map(|(pfn, index)| Page { pfn, index, is_file: pfn == 514 });
        let found: Vec<_> = windows(&pages).map(|w| (w.index, w.first_pfn, w.nr_pages())).collect();
        assert_eq!(found, [(1, 0, 1), (1, 512, 1), (1, 512, 1), (2, 512, 2), (3, 5120, 1)]);
        let cache: Vec<_> = windows(&pages).map(|w| w.is_file).collect();
        assert_eq!(cache, [0, 0, 1, 0, 0]);
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
