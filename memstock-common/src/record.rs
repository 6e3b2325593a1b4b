//! What the kernel half reports while a cgroup is recorded: the records of the ring buffer `RECORDED`, and which blocks
//! of files are followed (SHARDS: spatially hashed sampling).
//!
//! The hash of a block alone decides whether it is followed. So every access to a followed block is seen, and the
//! blocks followed at a lower rate are a subset of those followed at a higher one.

use crate::index_of;
use crate::page::{Chunk, owner_in};

/// Pages of a block; they are followed together.
pub const BLOCK_PAGES: u64 = 16;
/// Blocks examined in one call.
pub const MAX_BLOCKS: u32 = 64;
/// Number of places for a [`Recent`].
pub const PLACES: u32 = 1 << 16;
/// How long an access to a page that was reported is not reported again: two ticks of the kernel's clock, 2 to 20 ms.
pub const WINDOW_SHIFT: u32 = 1;

/// The hash of a block of a file, which is identified by the address of its mapping.
#[inline(always)]
pub const fn block_hash(file: u64, block: u64) -> u32 {
    // MurmurHash3's finalizer (fmix64), with the golden ratio between neighbours.
    let mixed = file.wrapping_add(block.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed >> 32) as u32
}

/// Whether a block with this hash is followed when one block in `one_in`, a power of two, is.
#[inline(always)]
pub const fn is_followed(hash: u32, one_in: u32) -> bool {
    hash & one_in.wrapping_sub(1) == 0
}

/// What was reported of a block lately, in one word: its hash, the time (modulo 2^16 windows), and which of its pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent(pub u64);

impl Recent {
    /// Returns which of `pages`, a bit each, are yet to be reported, and the word to store then.
    #[inline(always)]
    pub const fn add(self, hash: u32, window: u16, pages: u16) -> (u16, Self) {
        let same = (self.0 >> 16) == ((hash as u64) << 16 | window as u64);
        let told = if same { self.0 as u16 } else { 0 };
        let next = (hash as u64) << 32 | (window as u64) << 16 | (told | pages) as u64;
        (pages & !told, Self(next))
    }

    /// The word of a block of which nothing was reported.
    #[inline(always)]
    pub const fn of(hash: u32) -> Self {
        Self((hash as u64) << 32)
    }

    /// Its place, of 2^16: by the bits of the hash that matter last for whether a block is followed.
    #[inline(always)]
    pub const fn place(hash: u32) -> u32 {
        hash >> 16
    }

    /// The same word, as if these pages had never been reported.
    #[inline(always)]
    pub const fn forget(self, pages: u16) -> Self {
        Self(self.0 & !(pages as u64))
    }

    /// Whether the word is about the block with this hash.
    #[inline(always)]
    pub const fn is_of(self, hash: u32) -> bool {
        (self.0 >> 32) as u32 == hash
    }
}

/// The pages from `first` to `last` that are in block `block`, a bit each.
#[inline(always)]
pub const fn pages_in(block: u64, first: u64, last: u64) -> u16 {
    let begin = block * BLOCK_PAGES;
    let from = first.saturating_sub(begin);
    let to = if last - begin < BLOCK_PAGES { last - begin } else { BLOCK_PAGES - 1 };
    ((0xffff_u32 << (from & 15)) as u16) & ((0xffff_u32 >> (15 - (to & 15))) as u16)
}

/// The pages of block `block` that a file of `size` bytes has, a bit each.
#[inline(always)]
pub const fn pages_of(block: u64, size: u64, page_shift: u32) -> u16 {
    let shift = page_shift & 63;
    let nr_pages = (size >> shift) + (size & ((1 << shift) - 1) != 0) as u64;
    let begin = block * BLOCK_PAGES;
    if nr_pages <= begin { 0 } else { pages_in(block, begin, nr_pages - 1) }
}

impl Chunk<u32> {
    /// The first and the last page whose counter, by index, is true in `counters`; none in most chunks, which have no
    /// owner at all.
    pub fn span(&self, counters: &[bool]) -> Option<(usize, usize)> {
        if self.owners.iter().fold(0, |all, owner| all | owner) == 0 {
            return None;
        }
        let is_one = |&entry: &u32| is_of(entry, counters);
        let first = self.owners.iter().position(is_one)?;
        Some((first, self.owners.iter().rposition(is_one).unwrap_or(first)))
    }
}

/// Whether the counter of an entry's owner is true in `counters`, by index.
pub fn is_of(entry: u32, counters: &[bool]) -> bool {
    counters.get(index_of(owner_in(entry)) as usize).copied().unwrap_or(false)
}

/// An access to pages of a block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accessed {
    /// A [`RecordKind`].
    pub kind: u32,
    /// Which pages of the block, a bit each.
    pub pages: u32,
    /// Time since boot, ns.
    pub time_ns: u64,
    /// The address of the file's mapping.
    pub file: u64,
    /// Which block of the file.
    pub block: u64,
    /// The inode number.
    pub inode: u64,
    /// The device in the kernel's encoding in the lower half, the inode's generation in the upper.
    pub device: u64,
}

const _: () = assert!(size_of::<Accessed>() == 48, "no implicit padding");

/// What happened to a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// A [`RecordKind`].
    pub kind: u32,
    /// The process.
    pub pid: u32,
    /// Time since boot, ns.
    pub time_ns: u64,
    /// Its parent, if it was born.
    pub parent: u32,
    /// Always 0.
    pub zero: u32,
    /// The name of the new program, if it execs: up to a NUL.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Happened>() == 40, "no implicit padding");

/// A charge of the engine, or an event that gave charged pages back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charged {
    /// A [`RecordKind`].
    pub kind: u32,
    /// The CPU.
    pub cpu: u32,
    /// The owner; [`NOBODY`](crate::NOBODY) for a CPU that was drained.
    pub owner: u32,
    /// Pages.
    pub nr_pages: u32,
}

const _: () = assert!(size_of::<Charged>() == 16, "no implicit padding");

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RecordKind {
    /// Pages were found in the page cache by read(2) and the like.
    Read = 1,
    /// Pages were mapped in.
    Mapped = 2,
    /// Pages entered the page cache.
    Added = 3,
    /// Pages left the page cache.
    Removed = 4,
    /// A process was born.
    Born = 5,
    /// A process executed another program.
    Exec = 6,
    /// A process ended.
    Died = 7,
    /// A page fault consumed a page, or missed.
    Fault = 8,
    /// Pages were charged at their allocation.
    Charged = 9,
    /// Pages were uncharged.
    Uncharged = 10,
    /// All stocks of a CPU were drained.
    Drained = 11,
    /// Clean pages of the page cache became dirty.
    Dirtied = 12,
}

impl TryFrom<u32> for RecordKind {
    type Error = crate::event::Unknown;

    fn try_from(kind: u32) -> Result<Self, Self::Error> {
        Ok(match kind {
            1 => Self::Read,
            2 => Self::Mapped,
            3 => Self::Added,
            4 => Self::Removed,
            5 => Self::Born,
            6 => Self::Exec,
            7 => Self::Died,
            8 => Self::Fault,
            9 => Self::Charged,
            10 => Self::Uncharged,
            11 => Self::Drained,
            12 => Self::Dirtied,
            other => return Err(crate::event::Unknown(other)),
        })
    }
}
