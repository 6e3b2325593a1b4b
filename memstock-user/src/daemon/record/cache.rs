//! Decides which accesses to page cache are recorded: those of followed blocks, and no more blocks than there is room
//! for. Does not know how accesses are reported.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Write};
use std::time::Duration;

use memstock_common::record::{Accessed, BLOCK_PAGES, RecordKind, block_hash, is_followed};
use rustix::fs::makedev;

use crate::host::inode::{FileSystems, Inode};
use crate::recording::{Access, AccessKind, File, Writer};

/// The largest number of blocks followed at once.
const MAX_BLOCKS: usize = 8192;
/// With so few blocks the rate stays whatever time they cost: fewer say little about the rest.
const MIN_BLOCKS: usize = 64;
/// With so few it stays however large the file gets.
const FEWEST_BLOCKS: usize = 16;
/// Accesses that cost the recorded task at most 3 % of a CPU, 1.5 µs each; the start of a short program is free.
const OF_TIME: Bucket = Bucket::new(20_000, 20_000);
/// Accesses that make 1 MiB of entries at first, and then 15 MiB an hour; a fifth of it in the file.
const OF_SPACE: Bucket = Bucket::new(150_000, 600);
/// Times of accesses are multiples of this: nothing needs them finer, and it halves the compressed file.
const TICK: Duration = Duration::from_micros(100);

/// The followed part of the page cache.
pub(super) struct Cache {
    one_in: u32,
    /// The pages seen of each block, one bit a page, by the file's key and the block.
    followed: HashMap<(u64, u64), u16>,
    of_time: Bucket,
    of_space: Bucket,
    /// Whether accesses were told of since the last look.
    is_sent: bool,
    /// Devices of the recorded files, as `stat(2)` numbers them.
    devices: BTreeSet<u64>,
    names: Option<FileSystems>,
    /// Files that were mapped.
    mapped: HashSet<u32>,
}

impl Cache {
    pub(super) fn new() -> Self {
        let names =
            FileSystems::find().inspect_err(|error| log::debug!("no paths: {error:#}")).ok();
        Self {
            one_in: 1,
            followed: HashMap::new(),
            of_time: OF_TIME,
            of_space: OF_SPACE,
            is_sent: false,
            devices: BTreeSet::new(),
            names,
            mapped: HashSet::new(),
        }
    }

    /// Records an access.
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
            RecordKind::Dirtied => AccessKind::Dirtied,
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
        if kind == AccessKind::Mapped && self.mapped.insert(file) && self.is_program(accessed) {
            to.program(file)?;
        }
        let at = at - Duration::from_nanos((at.as_nanos() % TICK.as_nanos()) as u64);
        for (first, nr_pages) in runs(pages) {
            let index = block * BLOCK_PAGES + u64::from(first);
            let access = Access { at, file, index, pages: nr_pages, one_in: self.one_in, kind };
            to.access(&access)?;
            self.of_time.add(at);
            self.of_space.add(at);
            self.is_sent = true;
        }
        Ok(())
    }

    /// Whether accesses come so fast that the next look should be soon.
    pub(super) fn is_busy(&self) -> bool {
        self.is_sent && self.of_time.is_half_full() && self.followed.len() > MIN_BLOCKS
    }

    /// Adjusts how many blocks are followed; returns the new rate, one block in so many, if it changed.
    pub(super) fn rate(&mut self) -> Option<u32> {
        let before = self.one_in;
        let (takes_time, takes_space) = (self.of_time.overflows(), self.of_space.overflows());
        let followed = self.followed.len();
        if takes_time && followed > MIN_BLOCKS || takes_space && followed > FEWEST_BLOCKS {
            self.halve();
        }
        while self.followed.len() > MAX_BLOCKS {
            self.halve();
        }
        self.is_sent = false;
        (self.one_in != before).then_some(self.one_in)
    }

    fn halve(&mut self) {
        self.one_in = self.one_in.saturating_mul(2);
        self.followed.retain(|&(key, block), _| is_followed(block_hash(key, block), self.one_in));
    }

    /// Devices of the recorded files, as `stat(2)` numbers them.
    pub(super) fn devices(&self) -> impl Iterator<Item = u64> {
        self.devices.iter().copied()
    }

    fn number(&mut self, accessed: &Accessed, to: &mut Writer<impl Write>) -> io::Result<u32> {
        let (key, inode) = (accessed.file, inode_of(accessed));
        // The kernel numbers devices in its own way: MINORBITS in include/linux/kdev_t.h.
        let device = makedev(inode.device >> 20, inode.device & 0xf_ffff);
        match to.number_of(key, device, inode.number) {
            Some(number) => Ok(number),
            None => {
                let path = self.names.as_ref().and_then(|names| names.path(inode));
                self.devices.insert(device);
                to.file(&File { device, inode: inode.number, path, is_program: false }, key)
            }
        }
    }

    fn is_program(&self, accessed: &Accessed) -> bool {
        self.names.as_ref().is_some_and(|names| names.is_program(inode_of(accessed)))
    }
}

fn inode_of(accessed: &Accessed) -> Inode {
    let Accessed { inode, device, .. } = *accessed;
    Inode { device: device as u32, number: inode, generation: (device >> 32) as u32 }
}

/// Has room for so many accesses, and loses so many a second.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    room: u64,
    a_second: u64,
    level: f64,
    at: Duration,
}

impl Bucket {
    const fn new(room: u64, a_second: u64) -> Self {
        Self { room, a_second, level: 0.0, at: Duration::ZERO }
    }

    /// An access, at the time when it happened: it may be told of later, with many others.
    fn add(&mut self, at: Duration) {
        let passed = at.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(at);
        self.level = (self.level - passed * self.a_second as f64).max(0.0) + 1.0;
    }

    fn is_half_full(&self) -> bool {
        self.level > self.room as f64 / 2.0
    }

    /// Whether it overflows; it is half empty then, so that what is done about it can show an effect.
    fn overflows(&mut self) -> bool {
        let overflows = self.level > self.room as f64;
        if overflows {
            self.level = self.room as f64 / 2.0;
        }
        overflows
    }
}

/// The runs of set bits: first bit and length.
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
        assert_eq!(cache.rate(), None);
        touch(&mut cache, &mut to, 1000..100_000, RecordKind::Read);
        let one_in = cache.rate().unwrap();
        assert!((8..=32).contains(&one_in), "{one_in}");
        assert!((2048..=MAX_BLOCKS).contains(&cache.followed.len()), "{}", cache.followed.len());
        touch(&mut cache, &mut to, 0..100_000, RecordKind::Removed);
        assert!(cache.followed.is_empty());
    }

    /// 262,144 reads a second, told of all at once: a sixteenth of them is what may be recorded.
    #[test]
    fn the_rate_is_what_it_has_to_be_and_no_lower() {
        let (mut cache, mut to) = begun();
        for ms in 0..1000 {
            for n in 0..262_u64 {
                let block = (ms * 262 + n) % 30_000;
                let accessed = Accessed { file: 7, block, pages: 1, ..Accessed::default() };
                cache
                    .take(Duration::from_millis(ms), RecordKind::Read, &accessed, &mut to)
                    .unwrap();
            }
            if ms % 10 == 9 {
                cache.rate();
            }
        }
        assert!((8..=16).contains(&cache.one_in), "{}", cache.one_in);
    }

    /// For ten minutes, 4,000 blocks are read in turn, so many times a second; returns how many are followed then.
    fn read_without_end(a_second: u64) -> usize {
        let (mut cache, mut to) = begun();
        for n in 0..600 * a_second {
            let at = Duration::from_micros(n * 1_000_000 / a_second);
            let accessed = Accessed { file: 7, block: n % 4000, pages: 1, ..Accessed::default() };
            cache.take(at, RecordKind::Read, &accessed, &mut to).unwrap();
            if n % 100 == 99 {
                cache.rate();
            }
        }
        cache.followed.len()
    }

    #[test]
    fn few_blocks_that_are_read_without_end_stay_followed() {
        // 600 a second are recorded in the long run: an eighth of these.
        let some = read_without_end(3000);
        assert!((MIN_BLOCKS * 2..4000 / 2).contains(&some), "{some}");
        let few = read_without_end(300_000 / 10);
        assert!((FEWEST_BLOCKS..=4 * MIN_BLOCKS).contains(&few), "{few}");
    }
}
