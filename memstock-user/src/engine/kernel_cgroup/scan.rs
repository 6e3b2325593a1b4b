//! Reads pages from both sides: our page-owner map, and the kernel's `/proc/kpagecgroup` and `/proc/kpageflags`. Must
//! not judge or change anything.
//!
//! It reads one chunk of the owner map after the other, so that the two sides of a page are read within a millisecond,
//! although all pages of a host take half a second.

use std::io;
use std::ops::Range;

use anyhow::{Context as _, Result};
use memstock_common::file::FILE;
use memstock_common::page::{CHUNK_PAGES, owner_in};
use memstock_common::{Chunk, NO_INDEX, index_of};

use super::KernelMap;
use crate::engine::Engine;
use crate::engine::mapped::Mapped;
use crate::exit::Failure;
use crate::host::pages::{KernelPages, Kind};

/// Pages in a chunk.
const CHUNK: usize = CHUNK_PAGES as usize;
/// Gaps of fewer pages than this are read over: a system call costs as much.
const GAP: usize = 16;
/// `KPF_COMPOUND_TAIL`: not the first page of a larger allocation.
const COMPOUND_TAIL: u64 = 1 << 16;

/// A page, as read from both sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PageView {
    /// Its page frame number.
    pub pfn: u64,
    /// The counter of its owner; [`NO_INDEX`] if it has none.
    pub index: u32,
    /// The number of the memory cgroup that the kernel charges it to; 0 for none, or if that was not read.
    pub number: u64,
    /// What it is used for.
    pub kind: Kind,
    /// Whether it is reclaimable page cache in the kernel; none where the kernel does not say.
    pub is_file: Option<bool>,
    /// Whether it is page cache in our owner map.
    pub is_our_file: bool,
}

/// Reads pages.
#[derive(Debug)]
pub struct PageScan {
    owners: Mapped<Chunk<u32>>,
    flags: KernelPages,
    /// Present only if the kernel knows one of the cgroups.
    cgroups: Option<KernelPages>,
    map: KernelMap,
}

/// What the kernel says about the pages of one chunk.
struct Words {
    cgroups: [u64; CHUNK],
    flags: [u64; CHUNK],
}

impl PageScan {
    /// Opens the map and the files.
    ///
    /// # Errors
    /// A map or a file in `/proc` cannot be opened.
    pub fn open(engine: &Engine, map: KernelMap) -> Result<Self> {
        let cgroups = if map.is_empty() {
            None
        } else {
            let cgroups = KernelPages::cgroups()?.ok_or_else(|| {
                Failure::Host.error("this kernel has no /proc/kpagecgroup (CONFIG_MEMCG)")
            });
            Some(cgroups?)
        };
        Ok(Self { owners: engine.owners()?, flags: KernelPages::flags()?, cgroups, map })
    }

    /// The mapping between the two sides' cgroups.
    pub fn map(&self) -> &KernelMap {
        &self.map
    }

    /// Calls `visit` with the pages of each chunk that either side gives to a known cgroup; never with an empty slice.
    ///
    /// # Errors
    /// A file cannot be read, or `visit` fails.
    pub fn all(&self, mut visit: impl FnMut(&[PageView]) -> Result<()>) -> Result<()> {
        let mut words = Words { cgroups: [0; CHUNK], flags: [0; CHUNK] };
        let mut found = Vec::with_capacity(CHUNK);
        for number in 0..self.owners.len() {
            let Some(chunk) = self.owners.get(number) else { break };
            let is_owned = chunk.owners.iter().fold(0, |all, owner| all | owner) != 0;
            let first = number as u64 * u64::from(CHUNK_PAGES);
            if !self.read_cgroups(first, &mut words)? && !is_owned {
                continue;
            }
            self.read_flags(first, &mut words, |n| chunk.owners[n] != 0)?;
            let seen = (0..CHUNK).map(|n| words.seen(&chunk, first, n));
            found.clear();
            found.extend(
                seen.filter(|page| {
                    page.index != NO_INDEX || self.map.counter(page.number).is_some()
                }),
            );
            if !found.is_empty() {
                visit(&found)?;
            }
        }
        Ok(())
    }

    /// Reads pages again: all of `pfns`, which ascend, except those that the owner map does not cover.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn again(&self, pfns: &[u64]) -> Result<Vec<PageView>> {
        let mut words = Words { cgroups: [0; CHUNK], flags: [0; CHUNK] };
        let mut found = Vec::with_capacity(pfns.len());
        for pfns in pfns.chunk_by(|a, b| a / CHUNK as u64 == b / CHUNK as u64) {
            let number = pfns[0] / CHUNK as u64;
            let first = number * CHUNK as u64;
            let chunk = self.owners.get(usize::try_from(number)?);
            let Some(chunk) = chunk else { continue };
            self.read_cgroups(first, &mut words)?;
            let mut wanted = [false; CHUNK];
            pfns.iter().for_each(|pfn| wanted[(pfn - first) as usize] = true);
            self.read_flags(first, &mut words, |n| wanted[n])?;
            found.extend(pfns.iter().map(|pfn| words.seen(&chunk, first, (pfn - first) as usize)));
        }
        Ok(found)
    }

    /// Reads the kernel's owners of the pages; returns whether any of them is one of our cgroups.
    fn read_cgroups(&self, first: u64, words: &mut Words) -> Result<bool> {
        let Some(cgroups) = &self.cgroups else { return Ok(false) };
        fill(cgroups, first, &mut words.cgroups).context("cannot read /proc/kpagecgroup")?;
        Ok(words.cgroups.iter().any(|&number| self.map.counter(number).is_some()))
    }

    /// Reads the kinds of the pages: of the wanted ones, or of all if the kernel's owners depend on them.
    fn read_flags(
        &self,
        first: u64,
        words: &mut Words,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let cannot = "cannot read /proc/kpageflags";
        if self.cgroups.is_some() {
            fill(&self.flags, first, &mut words.flags).context(cannot)?;
            words.spread_heads();
            return Ok(());
        }
        for stretch in stretches(wanted) {
            let start = first + stretch.start as u64;
            fill(&self.flags, start, &mut words.flags[stretch]).context(cannot)?;
        }
        Ok(())
    }
}

impl Words {
    fn seen(&self, chunk: &Chunk<u32>, first: u64, n: usize) -> PageView {
        PageView {
            pfn: first + n as u64,
            index: index_of(owner_in(chunk.owners[n])),
            number: self.number(chunk, n),
            kind: Kind::of(self.flags[n]),
            is_file: Kind::is_file(self.flags[n]),
            is_our_file: chunk.owners[n] & FILE != 0,
        }
    }

    /// The kernel's cgroup of a page. When the kernel allocates two pages together for itself and charges them
    /// together, the second page shows no cgroup: page directories of kernels before Linux 6.15 that may isolate page
    /// tables (`PGD_ALLOCATION_ORDER` in arch/x86). In our map both then have the same owner.
    fn number(&self, chunk: &Chunk<u32>, n: usize) -> u64 {
        let is_second = n % 2 == 1
            && self.cgroups[n] == 0
            && [n - 1, n].iter().all(|&page| Kind::of(self.flags[page]) == Kind::Kernel)
            && owner_in(chunk.owners[n]) == owner_in(chunk.owners[n - 1]);
        self.cgroups[if is_second { n - 1 } else { n }]
    }

    /// Gives each page of a compound page the cgroup of its first page: some kernels report 0 for the others
    /// (`page_cgroup_ino` in mm/memcontrol.c before Linux 6.4).
    fn spread_heads(&mut self) {
        let mut head = 0;
        for (number, flags) in self.cgroups.iter_mut().zip(&self.flags) {
            if flags & COMPOUND_TAIL == 0 {
                head = *number;
            } else if *number == 0 {
                *number = head;
            }
        }
    }
}

/// The ranges of a chunk that cover the wanted pages.
fn stretches(wanted: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut stretches = Vec::<Range<usize>>::new();
    for n in (0..CHUNK).filter(|&n| wanted(n)) {
        match stretches.last_mut() {
            Some(last) if n - last.end < GAP => last.end = n + 1,
            _ => stretches.push(n..n + 1),
        }
    }
    stretches
}

/// Reads the words of pages; those beyond the end of the file are 0.
fn fill(pages: &KernelPages, first: u64, out: &mut [u64]) -> io::Result<()> {
    let count = pages.read(first, out)?;
    out[count..].fill(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_have_what_their_head_has() {
        let mut words = Words { cgroups: [0; CHUNK], flags: [0; CHUNK] };
        words.cgroups[..6].copy_from_slice(&[7, 0, 9, 0, 0, 0]);
        words.flags[..6].copy_from_slice(&[0, COMPOUND_TAIL, 0, COMPOUND_TAIL, 0, COMPOUND_TAIL]);
        words.spread_heads();
        assert_eq!(words.cgroups[..6], [7, 7, 9, 9, 0, 0]);
    }

    #[test]
    fn the_second_of_two_kernel_pages_has_the_cgroup_of_the_first() {
        let mut words = Words { cgroups: [0; CHUNK], flags: [0; CHUNK] };
        let mut chunk = Chunk { owners: [0; CHUNK] };
        (words.cgroups[4], words.cgroups[6], words.cgroups[9]) = (77, 77, 77);
        chunk.owners[4..12].fill(5);
        // One page is another cgroup's; and one is free.
        chunk.owners[7] = 6;
        words.flags[11] = 1 << 10;
        let number = |n| words.seen(&chunk, 0, n).number;
        assert_eq!([4, 5, 6, 7, 9, 10, 11].map(number), [77, 77, 77, 0, 77, 0, 0]);
    }

    #[test]
    fn small_gaps_are_read_over() {
        let pages = [0, 1, 17, 40, 1023];
        assert_eq!(stretches(|n| pages.contains(&n)), [0..18, 40..41, 1023..1024]);
        assert_eq!(stretches(|_| true).first(), Some(&(0..CHUNK)));
        assert!(stretches(|_| false).is_empty());
    }

    #[test]
    fn a_page_is_seen_from_both_sides() {
        let mut words = Words { cgroups: [0; CHUNK], flags: [0; CHUNK] };
        let mut chunk = Chunk { owners: [0; CHUNK] };
        chunk.owners[3] = 5 | FILE | memstock_common::page::UNCONFIRMED;
        (words.cgroups[3], words.flags[3]) = (77, 1 << 10);
        let seen = words.seen(&chunk, 2048, 3);
        let expected = PageView {
            pfn: 2051,
            index: 4,
            number: 77,
            kind: Kind::Buddy,
            is_file: Some(false),
            is_our_file: true,
        };
        assert_eq!(seen, expected);
        assert_eq!(words.seen(&chunk, 2048, 4).index, NO_INDEX);
    }
}
