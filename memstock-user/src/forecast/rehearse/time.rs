//! How long the disk takes for what is read again and written, and how much of that the tasks wait.

use std::time::Duration;

use super::{Rehearsal, page_size};
use crate::forecast::timeline::PARTS;
use crate::recording::End;

/// The time to read a page if the recording does not tell: 4 KiB at 200 MiB a second.
const READ_NS_PER_PAGE: u64 = 20_000;
/// Accesses are compared with time in steps of at least this: the kernel's clock ticks every 1 to 10 ms.
const RESOLUTION: Duration = Duration::from_millis(20);
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

    /// The seconds in which tasks compute while the disk reads these pages for them, given by parts of the run: the same
    /// part of the disk's time as when they read from it in the recording, and not more than they took for them there.
    pub(super) fn seconds_computed_while_read(&self, pages: &[f64; PARTS]) -> f64 {
        let computed = 1.0 - self.part_waited().unwrap_or(1.0);
        let each = self.timeline.end.as_secs_f64() / PARTS as f64;
        let together = (RESOLUTION.as_secs_f64() / each).ceil().clamp(1.0, PARTS as f64) as usize;
        let in_parts = pages.chunks(together).map(|parts| {
            let read = self.seconds_to_read(self.bytes(parts.iter().sum::<f64>() as u64));
            (read * computed).min(each * parts.len() as f64)
        });
        in_parts.sum()
    }

    /// The part of the disk's time in which tasks waited for what they read from it, if the recording tells. `io.pressure`
    /// also counts what they waited for writes, so it may be less.
    pub(in crate::forecast) fn part_waited(&self) -> Option<f64> {
        let pages = self.uses.read;
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

#[cfg(test)]
mod tests;
