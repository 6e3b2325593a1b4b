//! Sums over a world, and the law of conservation, for all pages and for page cache.

use super::*;
use memstock_common::counter::needed;
use memstock_common::file::{FILE, FileWord};
use memstock_common::page::owner_in;
use memstock_common::{StockWord, index_of};

impl<W: NewWord> World<W> {
    pub fn usage(&self, index: u32) -> u64 {
        self.counter(index).memory.usage.load()
    }

    pub fn watermark(&self, index: u32) -> u64 {
        self.counter(index).memory.watermark.load()
    }

    pub fn failcnt(&self, index: u32) -> u64 {
        self.counter(index).memory.failcnt.load()
    }

    /// All slots of all CPUs.
    pub fn slots(&self) -> impl Iterator<Item = &Stock<W>> {
        self.stocks.iter().flatten()
    }

    fn words(&self) -> impl Iterator<Item = StockWord> {
        self.slots().map(|stock| StockWord(stock.word.load()))
    }

    fn uncharge_batches(&self) -> impl Iterator<Item = StockWord> {
        self.slots().map(|stock| StockWord(stock.uncharge_batch.load()))
    }

    /// Pages stocked or pending for the cgroup `index`.
    pub fn stocked_for(&self, index: u32) -> u64 {
        let words = self.words().filter(|word| word.owner() == owner(index));
        words.map(|word| u64::from(word.charged())).sum()
    }

    /// Pages of the cgroup `index` in uncharge batches.
    pub fn uncharging(&self, index: u32) -> u64 {
        let words = self.uncharge_batches().filter(|word| word.owner() == owner(index));
        words.map(|word| u64::from(word.charged())).sum()
    }

    /// Pages stocked or pending.
    pub fn stocked(&self) -> u64 {
        self.words().map(|word| u64::from(word.charged())).sum()
    }

    /// All operations on the shared counters.
    pub fn shared_operations(&self) -> u64 {
        let of = |stock: &Stock<W>| [&stock.charges, &stock.uncharges, &stock.drains].map(W::load);
        self.slots().flat_map(of).sum()
    }

    /// Pages that each cgroup owns according to the owner map, by counter.
    pub fn owned(&self) -> Vec<u64> {
        let mut owned = vec![0; self.shape.cgroups as usize];
        for entry in self.chunks.iter().flat_map(|chunk| &chunk.owners) {
            let index = index_of(owner_in(entry.load()));
            if index != NO_INDEX {
                owned[index as usize] += 1;
            }
        }
        owned
    }

    /// Page cache that each cgroup owns according to the owner map, by counter.
    pub fn file_pages(&self) -> Vec<u64> {
        let mut pages = vec![0; self.shape.cgroups as usize];
        for entry in self.chunks.iter().flat_map(|chunk| &chunk.owners).map(Entry::load) {
            if entry & FILE != 0 {
                let index = index_of(owner_in(entry));
                assert_ne!(index, NO_INDEX, "page cache of nobody: {entry:#x}");
                pages[index as usize] += 1;
            }
        }
        pages
    }

    fn file_words(&self) -> impl Iterator<Item = FileWord> {
        self.slots().map(|stock| FileWord(stock.file.load()))
    }

    /// Changes of the page cache of the cgroup `index` that CPUs have yet to report.
    pub fn untold(&self, index: u32) -> i64 {
        let words = self.file_words().filter(|word| word.owner() == owner(index));
        words.map(|word| i64::from(word.change())).sum()
    }

    /// Page cache that has been reported to a counter; may be negative.
    pub fn file(&self, index: u32) -> i64 {
        self.counter(index).file.load() as i64
    }

    /// The highest need, by the reader's rule: the last charge enters the watermark only at the next change.
    pub fn needed_peak(&self, index: u32) -> u64 {
        let counter = self.counter(index);
        let now = needed(counter.memory.usage.load(), counter.file.load());
        self.needed_watermark(index).max(now)
    }

    pub fn needed_watermark(&self, index: u32) -> u64 {
        self.counter(index).needed_watermark.load()
    }

    /// Page faults of a cgroup, by the reader's rule: those credited, and those its slots have yet to credit.
    pub fn faults(&self, index: u32) -> u64 {
        let shares: u64 =
            self.shares.iter().map(|shares| shares[index as usize].faults.load()).sum();
        let credited =
            self.slots().filter(|stock| stock.creditor.load() == u64::from(owner(index)));
        shares + credited.map(|s| s.faults.load().wrapping_sub(s.credited.load())).sum::<u64>()
    }

    /// Pages charged to a cgroup at their allocation, by the reader's rule: from a stock, and with a charge on the
    /// shared counters.
    pub fn charged(&self, index: u32) -> [u64; 2] {
        [self.sum(index, |share| &share.from_stock), self.sum(index, |share| &share.missed)]
    }

    /// Sums one statistic of a cgroup over the CPUs.
    pub fn sum(&self, index: u32, of: impl Fn(&CgroupCpu<W>) -> &W) -> u64 {
        self.shares.iter().map(|shares| of(&shares[index as usize]).load()).sum()
    }

    /// Asserts that each cgroup owns as many pages as given, and the law of conservation.
    #[track_caller]
    pub fn assert_owned(&self, owned: &[u64]) {
        assert_eq!(self.owned(), owned, "pages by owner");
        self.assert_conserved();
    }

    /// The same for page cache.
    #[track_caller]
    pub fn assert_file_pages(&self, pages: &[u64]) {
        assert_eq!(self.file_pages(), pages, "page cache by owner");
        self.assert_conserved();
    }

    /// Asserts the law of conservation: under every counter, what is charged is owned, stocked, pending or in an
    /// uncharge batch; and all but owned pages are bounded.
    #[track_caller]
    pub fn assert_conserved(&self) {
        self.assert_conserved_with(&vec![0; self.shape.cgroups as usize]);
    }

    /// The same, with pages that the test charged by hand, by counter.
    #[track_caller]
    pub fn assert_conserved_with(&self, by_hand: &[u64]) {
        let owned = self.owned();
        let due = |index: u32| {
            let charged = owned[index as usize] + by_hand[index as usize];
            charged + self.stocked_for(index) + self.uncharging(index)
        };
        for index in 0..self.shape.cgroups {
            let (usage, memsw) = (self.usage(index), self.counter(index).memsw.usage.load());
            if self.counter(index).id.load() == 0 {
                assert_eq!((due(index), usage, memsw), (0, 0, 0), "counter {index} is free");
                continue;
            }
            let below = (0..self.shape.cgroups).filter(|&i| self.below(i, index));
            let due: u64 = below.map(due).sum();
            assert_eq!(usage, due, "memory of counter {index}");
            assert_eq!(memsw, if self.shape.memsw { due } else { 0 }, "memsw of {index}");
        }
        let batch = self.shape.batch;
        assert!(self.words().all(|word| word.charged() <= batch), "too much is stocked");
        assert!(self.words().all(|word| word.pending() <= 1), "one fault pends on a CPU");
        let batch = self.shape.uncharge_batch.unwrap_or(batch);
        assert!(self.uncharge_batches().all(|word| word.pending() == 0 && word.nr_pages() < batch));
        self.assert_file_conserved();
    }

    /// Asserts the law for page cache: what was reported to a counter plus what CPUs have yet to report is the page
    /// cache under it; and unreported changes are bounded. A free counter has no page cache, and no CPU has changes for
    /// it.
    #[track_caller]
    fn assert_file_conserved(&self) {
        let pages = self.file_pages();
        for index in 0..self.shape.cgroups {
            if self.counter(index).id.load() == 0 {
                let words = self.file_words().filter(|word| word.owner() == owner(index));
                let untold = words.map(FileWord::change).any(|change| change != 0);
                let left = (pages[index as usize], self.file(index), untold);
                assert_eq!(left, (0, 0, false), "page cache of counter {index}, which is free");
                continue;
            }
            let below: Vec<_> = (0..self.shape.cgroups).filter(|&i| self.below(i, index)).collect();
            let pages: u64 = below.iter().map(|&i| pages[i as usize]).sum();
            let untold: i64 = below.iter().map(|&i| self.untold(i)).sum();
            assert_eq!(self.file(index) + untold, pages as i64, "page cache of counter {index}");
        }
        let batch = self.shape.uncharge_batch.unwrap_or(self.shape.batch);
        assert!(self.file_words().all(|word| word.change().unsigned_abs() < batch), "untold");
    }

    fn below(&self, index: u32, ancestor: u32) -> bool {
        let parent = |&at: &u32| {
            let counter = self.counter(at);
            Some(counter.parent()).filter(|&up| up != NO_INDEX && counter.id.load() != 0)
        };
        std::iter::successors(Some(index), parent).any(|at| at == ancestor)
    }
}
