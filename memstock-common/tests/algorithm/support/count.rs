//! What happens to pages besides allocation and free: reference counts and collapses.

use super::*;

impl<W: NewWord> World<W> {
    /// Sets whether pages have a reference count, as the kernel does even if the programs are skipped.
    pub fn set_count(&self, pages: Range<u64>, has_count: bool) {
        if let Some(counts) = &self.counts {
            for pfn in pages {
                counts.entry(pfn).swap(has_count.into());
            }
        }
    }

    /// What the program at the end of a collapse does, for the task on `cpu` and memory of the cgroup `index`.
    pub fn collapsed(&self, cpu: u32, index: u32) {
        self.collapsed_into(cpu, index, false);
    }

    /// The same for a huge page that may be page cache.
    pub fn collapsed_into(&self, cpu: u32, index: u32, is_file: bool) {
        collapse::collapsed(&self.cpu(cpu), || self.nearest(cpu, index), |_| is_file);
    }
}
