//! What the kernel does to a page beside its allocation and its free: it has a count, and may be put together with others.

use super::*;

impl<W: NewWord> World<W> {
    /// The kernel gives pages a count, or takes it. A program that is skipped then sees nothing of it.
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

    /// The same of a huge page that is page cache, or is not.
    pub fn collapsed_into(&self, cpu: u32, index: u32, is_file: bool) {
        collapse::collapsed(&self.cpu(cpu), || self.nearest(cpu, index), |_| is_file);
    }
}
