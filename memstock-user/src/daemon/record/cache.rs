//! Owns which accesses to page cache are recorded: those of blocks that are followed, and no more of them than there is
//! room for. Must not know how they are told of.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use memstock_common::record::{Accessed, BLOCK_PAGES, RecordKind, block_hash, is_followed};
use rustix::fs::makedev;

use crate::host::inode::{FileSystems, Inode};
use crate::recording::{Access, AccessKind, File, Writer};

/// Blocks that are followed at once, at the most.
const MAX_BLOCKS: usize = 8192;
/// As few as are left are followed, however often they are accessed: of fewer nothing can be said.
const MIN_BLOCKS: usize = 64;
/// Accesses that are recorded before it matters how many there are a second: some 1 MiB.
const CREDIT: u64 = 150_000;
/// The same, a second: some 15 MiB an hour.
const A_SECOND: u64 = 600;
/// As many are free: no program that is over soon is followed at a lower rate for what its start reads.
const FREE: u64 = 20_000;
/// The same, in one look: what they cost those who are recorded, some 1.5 µs each.
const AT_ONCE: u64 = 100;

/// The cache that is followed.
#[derive(Default)]
pub(super) struct Cache {
    one_in: u32,
    /// Which pages of a block were seen, a bit each, by the file's key and the block.
    followed: HashMap<(u64, u64), u16>,
    /// Accesses that were recorded, and those since the last look.
    told: u64,
    lately: u64,
    /// Of the files that are recorded, as `stat(2)` numbers them.
    devices: BTreeSet<u64>,
    names: Option<FileSystems>,
}

impl Cache {
    pub(super) fn new() -> Self {
        let names =
            FileSystems::find().inspect_err(|error| log::debug!("no paths: {error:#}")).ok();
        Self { one_in: 1, names, ..Self::default() }
    }

    /// Records what was told.
    pub(super) fn take(
        &mut self,
        at: Duration,
        kind: RecordKind,
        accessed: &Accessed,
        to: &mut Writer<impl Write>,
    ) -> io::Result<()> {
        let &Accessed { file: key, block, pages, .. } = accessed;
        let kind = match kind {
            RecordKind::Read => AccessKind::Read,
            RecordKind::Mapped => AccessKind::Mapped,
            RecordKind::Added => AccessKind::Added,
            _ => AccessKind::Removed,
        };
        let pages = pages as u16;
        if !is_followed(block_hash(key, block), self.one_in) {
            return Ok(());
        }
        let seen = self.followed.entry((key, block)).or_default();
        *seen = if kind == AccessKind::Removed { *seen & !pages } else { *seen | pages };
        if *seen == 0 {
            self.followed.remove(&(key, block));
        }
        let file = self.number(accessed, to)?;
        for (first, nr_pages) in runs(pages) {
            let index = block * BLOCK_PAGES + u64::from(first);
            let access = Access { at, file, index, pages: nr_pages, one_in: self.one_in, kind };
            to.access(&access)?;
            self.told += 1;
            self.lately += 1;
        }
        Ok(())
    }

    /// Whether so much is told that the next look should be soon.
    pub(super) fn is_busy(&self) -> bool {
        self.told > FREE && self.lately > AT_ONCE && self.followed.len() > MIN_BLOCKS
    }

    /// Says at which rate blocks are to be followed from now on, if at another.
    pub(super) fn rate(&mut self, at: Duration) -> Option<u32> {
        let before = self.one_in;
        let room = CREDIT + A_SECOND * at.as_secs();
        if self.is_busy() || self.told > room && self.followed.len() > MIN_BLOCKS {
            self.halve();
        }
        while self.followed.len() > MAX_BLOCKS {
            self.halve();
        }
        self.lately = 0;
        (self.one_in != before).then_some(self.one_in)
    }

    fn halve(&mut self) {
        self.one_in = self.one_in.saturating_mul(2);
        self.followed.retain(|&(key, block), _| is_followed(block_hash(key, block), self.one_in));
    }

    /// Devices of the files that are recorded, as `stat(2)` numbers them.
    pub(super) fn devices(&self) -> impl Iterator<Item = u64> {
        self.devices.iter().copied()
    }

    fn number(&mut self, accessed: &Accessed, to: &mut Writer<impl Write>) -> io::Result<u32> {
        let &Accessed { file: key, inode, device, .. } = accessed;
        // The kernel numbers devices in its own way: MINORBITS in include/linux/kdev_t.h.
        let (generation, device) = ((device >> 32) as u32, device as u32);
        let told = makedev(device >> 20, device & 0xf_ffff);
        match to.number_of(key, told, inode) {
            Some(number) => Ok(number),
            None => {
                let path = self.path(Inode { device, number: inode, generation });
                self.devices.insert(told);
                to.file(&File { device: told, inode, path }, key)
            }
        }
    }

    fn path(&self, inode: Inode) -> Option<PathBuf> {
        self.names.as_ref()?.path(inode)
    }
}

/// The runs of bits that are set: the first, and how many.
fn runs(mut pages: u16) -> impl Iterator<Item = (u32, u32)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if pages == 0 {
            return None;
        }
        let gap = pages.trailing_zeros();
        let len = (pages >> gap).trailing_ones();
        let first = at + gap;
        pages = pages.checked_shr(gap + len).unwrap_or(0);
        at = first + len;
        Some((first, len))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Header;

    #[test]
    fn runs_are_what_is_set() {
        for pages in [0, 1, 0x8000, 0xffff, 0b0110_1110_0000_0011, 0xf00f_u16] {
            let all: u32 = runs(pages).map(|(first, len)| ((1 << len) - 1) << first).sum();
            assert_eq!(all, u32::from(pages), "{pages:b}");
        }
        assert_eq!(runs(0b1110_0111).collect::<Vec<_>>(), [(0, 3), (5, 3)]);
    }

    fn touch(
        cache: &mut Cache,
        to: &mut Writer<Vec<u8>>,
        blocks: std::ops::Range<u64>,
        kind: RecordKind,
    ) {
        for block in blocks {
            let accessed = Accessed { file: 7, block, pages: 0xffff, ..Accessed::default() };
            cache.take(Duration::ZERO, kind, &accessed, to).unwrap();
        }
    }

    fn begun() -> (Cache, Writer<Vec<u8>>) {
        let header = Header { page_size: 4096, ..Header::default() };
        let cache = Cache { names: None, ..Cache::new() };
        (cache, Writer::new(Vec::new(), &header).unwrap())
    }

    #[test]
    fn no_more_blocks_are_followed_than_there_is_room_for() {
        let (mut cache, mut to) = begun();
        touch(&mut cache, &mut to, 0..1000, RecordKind::Read);
        assert_eq!(cache.rate(Duration::ZERO), None);
        touch(&mut cache, &mut to, 1000..100_000, RecordKind::Read);
        let one_in = cache.rate(Duration::ZERO).unwrap();
        assert!((8..=32).contains(&one_in), "{one_in}");
        assert!((2048..=MAX_BLOCKS).contains(&cache.followed.len()), "{}", cache.followed.len());
        touch(&mut cache, &mut to, 0..100_000, RecordKind::Removed);
        assert!(cache.followed.is_empty());
    }

    #[test]
    fn few_blocks_that_are_read_without_end_stay_followed() {
        let (mut cache, mut to) = begun();
        for _ in 0..100 {
            touch(&mut cache, &mut to, 0..4000, RecordKind::Read);
            cache.rate(Duration::ZERO);
        }
        assert!(cache.followed.len() <= 2 * MIN_BLOCKS && cache.one_in >= 16, "{}", cache.one_in);
        assert!(cache.followed.len() >= MIN_BLOCKS / 4, "{}", cache.followed.len());
    }
}
