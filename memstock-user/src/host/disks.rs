//! How fast the host's block devices are, from their statistics over a period
//! (`Documentation/admin-guide/iostats.rst`).

use std::collections::HashMap;
use std::fs;

use rustix::fs::makedev;

use super::page_size;

/// Bytes of a sector in `/proc/diskstats`, whatever the device's own size.
const SECTOR: u64 = 512;
/// With fewer pages than these (1 MiB) there is no telling a speed.
const FEWEST_PAGES: u64 = 256;
/// The time is counted in ticks of 1 to 10 ms, so that with less there is no telling it from none.
const LEAST_BUSY_MS: u64 = 4;

/// A request takes about as long as so many bytes more: a flash device that moves 2 GB/s answers in 60 µs.
const BYTES_OF_A_REQUEST: u64 = 128 << 10;

/// How long devices take for a page, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// In the requests that were made.
    pub(crate) mean: u64,
    /// In large requests, as dirty pages are written.
    pub(crate) in_bulk: u64,
}

/// What each device has done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disks(HashMap<u64, Done>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    /// Reads and writes.
    requests: u64,
    /// Sectors read and written.
    sectors: u64,
    /// Milliseconds in which I/O was in flight.
    busy_ms: u64,
}

impl Disks {
    /// The state now; empty if the kernel has no statistics.
    pub(crate) fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/diskstats").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let device = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
            let device = makedev(number(0)?.try_into().ok()?, number(1)?.try_into().ok()?);
            let requests = number(3)?.saturating_add(number(7)?);
            let sectors = number(5)?.saturating_add(number(9)?);
            Some((device, Done { requests, sectors, busy_ms: number(12)? }))
        };
        Self(text.lines().filter_map(device).collect())
    }

    /// How long these devices (numbered as in `stat(2)`) took for a page since `before`; none if they moved next to
    /// nothing, or are not block devices.
    pub(crate) fn cost(
        &self,
        before: &Self,
        devices: impl IntoIterator<Item = u64>,
    ) -> Option<Cost> {
        let (mut requests, mut pages, mut busy_ms) = (0, 0, 0);
        for device in devices {
            let Some(now) = self.0.get(&device) else { continue };
            let then = before.0.get(&device).copied().unwrap_or_default();
            requests += now.requests.saturating_sub(then.requests);
            pages += now.sectors.saturating_sub(then.sectors) * SECTOR / page_size();
            busy_ms += now.busy_ms.saturating_sub(then.busy_ms);
        }
        let each = |of: u64| busy_ms.max(LEAST_BUSY_MS) * 1_000_000 / of;
        let in_bulk = pages + requests * BYTES_OF_A_REQUEST / page_size();
        (pages >= FEWEST_PAGES).then(|| Cost { mean: each(pages), in_bulk: each(in_bulk) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
 254       0 vda 969 1675 8192 335 788 1078 0 793 0 100 421 77 12 5735 502 612 978
   7       1 loop1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
";
    const AFTER: &str = "\
 254       0 vda 979 1675 16384 335 794 1078 8192 793 0 116 421 77 12 5735 502 612 978
   7       1 loop1 0 0 8 0 0 0 0 0 0 4 0 0 0 0 0 0 0
";

    #[test]
    fn the_time_of_a_page_is_that_of_the_devices_that_were_busy() {
        let (before, after) = (Disks::parse(BEFORE), Disks::parse(AFTER));
        let (vda, loop1, none) = (makedev(254, 0), makedev(7, 1), makedev(0, 33));
        let pages = (2 * 8192 * SECTOR) / page_size();
        let (mean, in_bulk) =
            (16_000_000 / pages, 16_000_000 / (pages + 16 * BYTES_OF_A_REQUEST / page_size()));
        assert_eq!(after.cost(&before, [vda, none]), Some(Cost { mean, in_bulk }));
        assert_eq!(after.cost(&before, [loop1]), None);
        let mean_if = |busy_ms| {
            let after = Disks::parse(&AFTER.replace(" 116 ", &format!(" {} ", 100 + busy_ms)));
            after.cost(&before, [vda]).map(|cost| cost.mean)
        };
        assert_eq!([0, 4].map(mean_if), [Some(4_000_000 / pages); 2]);
        assert_eq!(after.cost(&before, [none]), None);
        assert_eq!(Disks::parse("254 0 vda 1 2\nx\n\n").0.len(), 0);
    }
}
