//! What the recording thread does at the end.

use super::Recording;
use crate::daemon::record::charges::Charging;
use crate::daemon::record::{Ending, Summary, lost};
use crate::enforce::task::pids;
use crate::host::disks::Disks;
use crate::recording::{CHARGES, End};

/// The most rounds of reading at the end, which is more than the ring holds: recorded tasks keep on reporting.
const LAST: usize = 64;

impl Recording {
    pub(super) fn end(mut self, ending: Ending) -> Summary {
        let here = pids(&self.subject.cgroup.dir);
        for _ in 0..LAST {
            if !self.poll() {
                break;
            }
        }
        // Before the last walk, which may take a second.
        let at = self.begun.elapsed();
        self.poll_readers(at);
        self.stalls.look(at);
        let cost = Disks::read().cost(&self.disks, self.cache.devices());
        if let Err(error) = self.look(at, true) {
            self.not_read(&error);
        }
        let lost = self.lost();
        let warnings = self.warnings(&here, lost.is_empty());
        let end = End {
            at,
            code: ending.code,
            read_bytes: ending.read_bytes,
            read_ns_per_page: cost.map(|cost| cost.mean),
            write_ns_per_page: cost.map(|cost| cost.in_bulk),
            io_stalled_us: self.stalls.total_us(),
            lost: lost.clone(),
            warnings: warnings.clone(),
        };
        let (tasks, mut failed) = (self.tasks.count, self.failed);
        let bytes = self.to.bytes();
        let bytes = match self.to.end(&end) {
            Ok(bytes) => bytes,
            Err(error) => {
                failed.get_or_insert_with(|| format!("the recording has no end: {error}"));
                bytes
            }
        };
        Summary { at, tasks, lost, warnings, bytes, failed }
    }

    /// Why more may be needed than was seen.
    fn warnings(&mut self, here: &[i32], knows_deaths: bool) -> Vec<String> {
        self.limits.look(&self.engine);
        let mut all = self.limits.hit(self.begun_ns);
        let has_command = !self.subject.command.is_empty();
        if knows_deaths {
            all.extend(self.tasks.remaining(here, has_command));
        }
        if !has_command && self.is_gone() {
            all.push(
                "the recording ended because the cgroup was removed, or the engine ended".into(),
            );
        }
        all
    }

    fn lost(&mut self) -> Vec<(String, u64)> {
        let lost_by = [self.recorded.lost(), self.charging.as_ref().map_or(Ok(0), Charging::lost)];
        let [records, charges] =
            lost_by.map(|lost| lost.unwrap_or_else(|error| self.lacks(&error, 0)));
        let engines = lost::of_engine(&self.engine)
            .unwrap_or_else(|error| self.lacks(&error, self.lost_before));
        let own = [("records", records), (CHARGES, charges), ("samples", self.unreadable)];
        lost::named(self.lost_before, engines, own)
    }

    /// Warns of what could not be read, and gives something in its place.
    fn lacks<T>(&mut self, error: &anyhow::Error, instead: T) -> T {
        self.not_read(error);
        instead
    }
}
