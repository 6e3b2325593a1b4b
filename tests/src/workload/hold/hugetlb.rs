//! Hugetlb pages, which the kernel takes from the page allocator and charges to no cgroup. The hugetlb pool is empty,
//! and may grow while the pages are allocated.

use std::fs::{self, File};

use anyhow::{Context as _, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::MapFlags;

use super::region::{PAGE_SIZE, Region, read_write};
use super::{Held, Unavailable};

const OVERCOMMIT: &str = "/proc/sys/vm/nr_overcommit_hugepages";
/// Huge pages to get, whatever was asked for: the host may have only a few.
const COUNT: usize = 4;
/// Small pages in a huge page.
const HUGE: usize = 512;

pub(super) fn private() -> Result<Held> {
    let flags = MapFlags::PRIVATE | MapFlags::HUGETLB;
    let region = with_surplus(|| Region::anonymous(COUNT * HUGE, flags))?;
    Ok(Held::region(0, region))
}

/// Page cache of hugetlbfs.
pub(super) fn shared() -> Result<Held> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB;
    let file = File::from(memfd_create(c"memstock-hold", flags).map_err(none)?);
    file.set_len((COUNT * HUGE * PAGE_SIZE).try_into()?).context("the size of a memfd")?;
    let region =
        with_surplus(|| Region::of_file(&file, COUNT * HUGE, read_write(), MapFlags::SHARED))?;
    Ok(Held::new(0, move || {
        region.unmap()?;
        drop(file);
        Ok(())
    }))
}

fn none(error: impl ToString) -> Unavailable {
    Unavailable(format!("no huge pages of hugetlb: {}", error.to_string()))
}

/// Huge pages beyond the pool that are in use already, by another holder for example.
fn surplus() -> Result<usize> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("HugePages_Surp:"));
    line.map_or(Ok(0), |count| count.trim().parse()).context("HugePages_Surp")
}

/// Maps and writes while the pool may grow. A mapping reserves its pages, so that no write fails.
fn with_surplus(map: impl FnOnce() -> Result<Region>) -> Result<Region> {
    let before = fs::read_to_string(OVERCOMMIT).map_err(none)?;
    let allowed: usize = before.trim().parse().context(OVERCOMMIT)?;
    fs::write(OVERCOMMIT, (allowed + surplus()? + COUNT).to_string()).map_err(none)?;
    let region = map()
        .map_err(|error| none(format!("{error:#}")).into())
        .inspect(|region| region.write_every(HUGE, 0));
    fs::write(OVERCOMMIT, before).context(OVERCOMMIT)?;
    region
}
