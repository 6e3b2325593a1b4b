//! How long the disk takes for what is read again and written, and how much of that the tasks wait.

use super::{Rehearsal, page_size};
use crate::recording::End;

/// The time to read a page if the recording does not tell: 4 KiB at 200 MiB a second.
const READ_NS_PER_PAGE: u64 = 20_000;
/// With fewer pages read (1 MiB) there is no telling how long tasks wait for one.
const FEWEST: u64 = 256;

impl Rehearsal<'_> {
    /// Seconds in which the disk reads so many bytes again.
    pub fn seconds_to_read(&self, bytes: u64) -> f64 {
        self.seconds(bytes, self.known_read_ns())
    }

    /// Seconds in which the disk writes so many bytes of dirty pages.
    pub(super) fn seconds_to_write(&self, bytes: u64) -> f64 {
        self.seconds(bytes, self.end().and_then(|end| end.write_ns_per_page))
    }

    /// The part of [`Self::seconds_to_read`] in which tasks compute, because the kernel reads ahead: as much as when they
    /// read the same files in the recording.
    pub(super) fn seconds_computed_while_read(&self, bytes: u64) -> f64 {
        self.seconds_to_read(bytes) * (1.0 - self.part_waited().unwrap_or(1.0))
    }

    /// The part of the disk's time in which tasks waited for what they read from it, if the recording tells. `io.pressure`
    /// also counts what they waited for writes, so it may be less.
    pub(in crate::forecast) fn part_waited(&self) -> Option<f64> {
        let pages = self.uses.read.values().sum::<u64>();
        let stalled_us = self.end()?.io_stalled_us.filter(|_| pages >= FEWEST)?;
        let busy = self.seconds_to_read(self.bytes(pages));
        Some((stalled_us as f64 / 1e6 / busy).min(1.0)).filter(|part| part.is_finite())
    }

    /// Nanoseconds to read a page, if the recording tells.
    pub(in crate::forecast) fn known_read_ns(&self) -> Option<u64> {
        self.end()?.read_ns_per_page.filter(|&ns| ns > 0)
    }

    fn end(&self) -> Option<&End> {
        self.recording.end.as_ref()
    }

    fn seconds(&self, bytes: u64, ns_per_page: Option<u64>) -> f64 {
        let ns_per_page = ns_per_page.filter(|&ns| ns > 0).unwrap_or(READ_NS_PER_PAGE);
        bytes as f64 / page_size(self.recording) as f64 * ns_per_page as f64 / 1e9
    }
}
