//! Whether a file is read from its beginning to its end, so that the kernel reads ahead of the program.

use memstock_common::record::BLOCK_PAGES;

use crate::recording::Access;

/// In which order a file was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    /// Pages that were read from the device for their first use.
    pub(super) first: u64,
    /// Reads of a block that went on where the one before ended.
    next: u64,
    /// All reads of a block.
    all: u64,
}

impl Order {
    /// The largest window of pages read ahead is as long; a shorter file is not read ahead for long.
    const LONG: u64 = 2048;
    /// Blocks that may lie between two that were reported.
    const NEAR: u64 = 16;

    /// Notes a read of a block; `last` is the page of the file that was read last.
    pub(super) fn note(&mut self, last: Option<u64>, access: &Access) {
        let near = Self::NEAR * BLOCK_PAGES * u64::from(access.one_in);
        let ahead = last.and_then(|last| access.index.checked_sub(last));
        self.all += 1;
        self.next += u64::from(ahead.is_some_and(|ahead| ahead <= near));
    }

    /// Whether it is read ahead whenever it is read.
    pub(super) fn is_kept(self) -> bool {
        self.first >= Self::LONG && self.next * 10 >= self.all * 9
    }
}
