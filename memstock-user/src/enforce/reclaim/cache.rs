//! Reclaims page cache of a subtree page by page. Pages are found in the owner map, whichever file they belong to and
//! whoever has it open, and dropped (`POSIX_FADV_DONTNEED`). Other cgroups' pages of the same file stay, and so do
//! mapped pages. If there are too few clean pages, it starts writeback of dirty ones without waiting for it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use memstock_common::adopt::{WINDOW_PAGES, Window};
use memstock_common::file::{FILE, FilePage};
use memstock_common::page::{CHUNK_PAGES, owner_in};
use memstock_common::{Chunk, NOBODY, index_of};
use rustix::fs::{Advice, fadvise};

use super::subtree;
use super::{Reclaimed, Request};
use crate::engine::Engine;
use crate::engine::mapped::Mapped;
use crate::host::inode::{FileSystems, Inode};
use crate::host::page_size;
use crate::host::pages::{Cached, KernelPages};

/// Finds page cache. Kept, since mapping the owner map costs more than searching part of it.
#[derive(Default)]
pub struct Cache {
    owners: OnceLock<Mapped<Chunk<u32>>>,
    /// The chunk that was searched last, by any thread: the next search continues there.
    at: AtomicUsize,
}

impl Cache {
    fn owners(&self, engine: &Engine) -> Result<&Mapped<Chunk<u32>>> {
        if let Some(owners) = self.owners.get() {
            return Ok(owners);
        }
        let owners = engine.owners()?;
        Ok(self.owners.get_or_init(|| owners))
    }
}

impl Cache {
    /// The largest number of pages that the host can have.
    ///
    /// # Errors
    /// The page-owner map cannot be mapped.
    pub fn host_pages(&self, engine: &Engine) -> Result<u64> {
        Ok(self.owners(engine)?.len() as u64 * u64::from(CHUNK_PAGES))
    }
}

/// Pages of a subtree.
#[derive(Default)]
struct Found {
    /// For each file, the offsets in it.
    files: BTreeMap<Inode, BTreeSet<u64>>,
    /// Their frame numbers, and their entries in the owner map.
    pages: Vec<(u64, u32)>,
}

/// Drops clean pages until enough are gone, those that the kernel considers inactive first; if there are too few,
/// starts writeback of dirty ones. Returns how many pages are gone.
pub(super) fn drop_clean(request: &Request<'_>) -> Result<Reclaimed> {
    if request.engine.counter(request.index)?.file.cast_signed() <= 0 {
        return Ok(Reclaimed::Nothing);
    }
    let owners = request.cache.owners(request.engine)?;
    let is_gone = |&&(pfn, entry): &&(u64, u32)| {
        let chunk = usize::try_from(pfn / u64::from(CHUNK_PAGES)).ok();
        chunk.and_then(|chunk| owners.get(chunk)).is_none_or(|chunk| *chunk.entry(pfn) != entry)
    };
    let systems = FileSystems::find()?;
    let (mut found, mut gone) = (0, 0);
    for wanted in [Cached::Inactive, Cached::Active] {
        let Found { files, pages } = find(request, wanted, request.nr_pages.saturating_sub(gone))?;
        each_range(&systems, &files, |file, offset, len| {
            // This is only advice: what cannot be dropped stays.
            let _ = fadvise(file, offset, std::num::NonZero::new(len), Advice::DontNeed);
        });
        found += pages.len();
        gone += pages.iter().filter(is_gone).count() as u64;
    }
    if gone < request.nr_pages && Instant::now() < request.deadline {
        let Found { files, pages } = find(request, Cached::Dirty, request.nr_pages - gone)?;
        found += pages.len();
        each_range(&systems, &files, |file, offset, len| {
            let (offset, len) = (offset.cast_signed(), len.cast_signed());
            let flags = libc::SYNC_FILE_RANGE_WRITE;
            // SAFETY: the descriptor is open; the call takes no memory.
            unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) };
        });
    }
    Ok(if found == 0 { Reclaimed::Nothing } else { Reclaimed::Pages(gone) })
}

/// Finds pages of the subtree in state `wanted`, until there are enough, none are left, or time is up.
fn find(request: &Request<'_>, wanted: Cached, enough: u64) -> Result<Found> {
    let Request { engine, cache, .. } = *request;
    let (owners, below) = (cache.owners(engine)?, subtree(&engine.counters(), request.index));
    let flags = KernelPages::flags()?;
    let mut found = Found::default();
    let mut words = [0; CHUNK_PAGES as usize];
    let start = cache.at.load(Ordering::Relaxed);
    for number in (0..owners.len()).map(|n| (start + n) % owners.len()) {
        if found.pages.len() as u64 >= enough || Instant::now() > request.deadline {
            break;
        }
        let Some(chunk) = owners.get(number) else { break };
        let is_theirs = |entry: u32| {
            let owner = owner_in(entry);
            entry & FILE != 0 && owner != NOBODY && below.contains(&index_of(owner))
        };
        let at = |&entry: &u32| is_theirs(entry);
        let (Some(first), Some(last)) =
            (chunk.owners.iter().position(at), chunk.owners.iter().rposition(at))
        else {
            continue;
        };
        cache.at.store(number, Ordering::Relaxed);
        let pfn = number as u64 * u64::from(CHUNK_PAGES) + first as u64;
        let read = flags.read(pfn, &mut words[first..=last])?;
        let states = Cached::of(&words[first..first + read]);
        let theirs = (pfn..).zip(chunk.owners[first..].iter().copied()).zip(states);
        let pages: Vec<_> = theirs
            .filter(|&((_, entry), state)| is_theirs(entry) && state == Some(wanted))
            .map(|(page, _)| page)
            .collect();
        for pages in pages.chunk_by(|(a, _), (b, _)| a / WINDOW == b / WINDOW) {
            if !add_files(engine, pages, &mut found)? {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// Finds out which files the pages of one window belong to. False while another thread does so.
fn add_files(engine: &Engine, pages: &[(u64, u32)], found: &mut Found) -> Result<bool> {
    let first_pfn = pages[0].0 / WINDOW * WINDOW;
    let mut window = Window { first_pfn, ..Window::default() };
    pages.iter().for_each(|&(pfn, _)| window.add(pfn));
    let Some(of) = engine.file_pages(window)? else { return Ok(false) };
    for &(pfn, entry) in pages {
        let page = of.get((pfn % WINDOW) as usize).copied().unwrap_or_default();
        let FilePage { inode: number, index, dev } = page;
        if number != 0 {
            let inode = Inode { device: dev as u32, number, generation: (dev >> 32) as u32 };
            found.files.entry(inode).or_default().insert(index);
            found.pages.push((pfn, entry));
        }
    }
    Ok(true)
}

const WINDOW: u64 = WINDOW_PAGES as u64;

/// Calls `act` with the file, offset and length in bytes of each run of pages whose file can be opened.
fn each_range(
    systems: &FileSystems,
    files: &BTreeMap<Inode, BTreeSet<u64>>,
    act: impl Fn(&std::fs::File, u64, u64),
) {
    for (&inode, pages) in files {
        let Some(file) = systems.open(inode) else { continue };
        for (first, nr_pages) in stretches(pages) {
            act(&file, first * page_size(), nr_pages * page_size());
        }
    }
}

/// First and length of each run of consecutive numbers.
fn stretches(pages: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut stretches = Vec::<(u64, u64)>::new();
    for &page in pages {
        match stretches.last_mut() {
            Some((first, len)) if *first + *len == page => *len += 1,
            _ => stretches.push((page, 1)),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_each_other_is_one() {
        assert_eq!(stretches(&[3, 4, 5, 9, 11, 12].into()), [(3, 3), (9, 1), (11, 2)]);
        assert_eq!(stretches(&BTreeSet::new()), []);
    }
}
