//! Huge pages: whole, partly unmapped, and as small pages that can be collapsed.

use anyhow::{Context as _, Result};
use rustix::mm::Advice;

use super::region::{PAGE_SIZE, Region};
use super::{Held, Unavailable};
use crate::workload::pages::faults;

/// Small pages in a huge page (x86-64, and arm64 with pages of 4 KiB).
const HUGE: usize = 512;
/// Huge pages to unmap in part, at least: two in each of the two ways.
const PARTIAL: usize = 4;

pub(super) fn huge(nr_pages: usize) -> Result<Held> {
    let region = touch_once(nr_pages.div_ceil(HUGE))?;
    Ok(Held::region(region.nr_pages(), region))
}

/// A partly mapped huge page stays charged as a whole: the kernel splits it only when it is short
/// of memory. Its count of mapped pages (`rss` in `memory.stat`) falls at once.
pub(super) fn partial(nr_pages: usize) -> Result<Held> {
    let count = nr_pages.div_ceil(HUGE).max(PARTIAL);
    let mut region = touch_once(count)?;
    for number in 0..count {
        let (start, end) = (number * HUGE, (number + 1) * HUGE);
        if number % 2 == 0 {
            for page in (start..end).step_by(2) {
                region.punch(page, page + 1)?;
            }
        } else {
            region.punch(start + HUGE / 2, end)?;
        }
    }
    Ok(Held::region(region.nr_pages(), region))
}

pub(super) fn pieces(nr_pages: usize) -> Result<Held> {
    let region = Region::aligned(nr_pages.next_multiple_of(HUGE), HUGE * PAGE_SIZE)?;
    in_pieces(&region)?;
    Ok(Held::region(region.nr_pages(), region))
}

pub(super) fn pieces_shared(nr_pages: usize) -> Result<Held> {
    let region = Region::aligned_shared(nr_pages.next_multiple_of(HUGE), HUGE * PAGE_SIZE)?;
    in_pieces(&region)?;
    Ok(Held::region(region.nr_pages(), region))
}

pub(super) fn pieces_wanted(nr_pages: usize) -> Result<Held> {
    let region = Region::aligned(nr_pages.next_multiple_of(HUGE), HUGE * PAGE_SIZE)?;
    in_pieces(&region)?;
    region.advise(Advice::LinuxHugepage).map_err(|error| none(&error.to_string()))?;
    Ok(Held::region(region.nr_pages(), region))
}

/// Touches the region in small pages, whatever the host's huge pages are set to, without registering it for khugepaged.
fn in_pieces(region: &Region) -> Result<()> {
    disable(true)?;
    region.write();
    disable(false)
}

/// Disables huge pages for this process, or returns to the host's setting.
pub(super) fn disable(disable: bool) -> Result<()> {
    rustix::thread::disable_transparent_huge_pages(disable).context("small pages, please")
}

fn none(reason: &str) -> Unavailable {
    Unavailable(format!("no huge pages: {reason}"))
}

fn touch_once(count: usize) -> Result<Region> {
    let region = Region::aligned(count * HUGE, HUGE * PAGE_SIZE)?;
    region.advise(Advice::LinuxHugepage).map_err(|error| none(&error.to_string()))?;
    region.write_every(HUGE, 0);
    // The kernel does not report that it gave small pages instead. Another fault shows it.
    let before = faults();
    region.write_every(HUGE, 1);
    if faults() > before {
        return Err(none("the kernel gave small ones").into());
    }
    Ok(region)
}
