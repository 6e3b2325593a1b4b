//! Pages and folios of the running kernel: whether they are free, how large they are, and what they are for.

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use memstock_common::file::FilePage;
use memstock_common::layout::{FolioLayout, PageLayout};

use crate::config;
use crate::typed::Typed;

/// How many pages a folio has.
#[inline(always)]
pub fn nr_pages(folio: u64) -> Option<u32> {
    let layout = config::folio()?;
    if is_large(layout, read(folio, layout.flags.load())?) {
        read_int(folio, layout.nr_pages.load())
    } else {
        Some(1)
    }
}

/// Whether the folio with these flags is a large one.
#[inline(always)]
fn is_large(layout: &FolioLayout<Global<u32>>, flags: u64) -> bool {
    has_bit(flags, layout.head_bit.load())
}

#[inline(always)]
fn has_bit(flags: u64, bit: u32) -> bool {
    flags >> (bit & 63) & 1 != 0
}

/// How many pages page cache has, and whether it can be reclaimed: its mapping is not unevictable, as those of ramfs,
/// `memfd_secret` and AIO rings are.
#[inline(always)]
pub fn extent(folio: Typed) -> Option<(u32, bool)> {
    let layout = config::folio()?;
    let nr_pages = if is_large(layout, folio.word(layout.flags.load())) {
        folio.int(layout.nr_pages.load())
    } else {
        1
    };
    let mapping = folio.pointer(layout.mapping.load());
    let flags = mapping.word(layout.mapping_flags.load());
    Some((nr_pages, !has_bit(flags, layout.unevictable_bit.load())))
}

/// `f_type` of hugetlbfs in statfs(2) (`include/uapi/linux/magic.h`).
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Whether page cache of its mapping is charged to the task that adds it: not huge pages of hugetlbfs, and not a file
/// system's own data (`filemap_add_folio` in `mm/filemap.c`).
#[inline(always)]
pub fn is_charged(folio: Typed) -> Option<bool> {
    let layout = config::folio()?;
    let mapping = folio.pointer(layout.mapping.load());
    if mapping.word(layout.mapping_flags.load()) & u64::from(layout.kernel_file.load()) != 0 {
        return Some(false);
    }
    let inode = mapping.pointer(layout.mapping_host.load());
    let super_block = inode.pointer(layout.inode_sb.load());
    Some(super_block.word(layout.sb_magic.load()) != HUGETLBFS_MAGIC)
}

/// Whether a folio that is in use is page cache of a file, and not anonymous or shared memory: `folio_is_file_lru`.
#[inline(always)]
pub fn is_file(folio: u64) -> Option<bool> {
    let layout = config::folio()?;
    Some(!has_bit(read(folio, layout.flags.load())?, layout.swapbacked_bit.load()))
}

/// Whether a page is free.
#[inline(always)]
pub fn is_free(page: u64) -> Option<bool> {
    let layout = config::page_layout();
    if layout == PageLayout::UNKNOWN {
        return None;
    }
    let refcount = read_int(page, layout.refcount)?;
    Some(layout.is_free(
        refcount,
        read(page, layout.compound_head)?,
        read_int(page, layout.page_type)?,
    ))
}

/// The file that a page belongs to, and its offset there.
#[inline(always)]
pub fn file_page(page: u64) -> Option<FilePage<u64>> {
    let (layout, of_page) = (config::folio()?, config::page_layout());
    if of_page == PageLayout::UNKNOWN {
        return None;
    }
    let head = read(page, of_page.compound_head)?;
    let folio = if head & 1 == 0 { page } else { head - 1 };
    // The low bits are set for anonymous memory, and for other pages that have no file.
    let mapping =
        read(folio, layout.mapping.load()).filter(|&mapping| mapping != 0 && mapping & 3 == 0)?;
    let inode = read(mapping, layout.mapping_host.load())?;
    let dev = read_int(read(inode, layout.inode_sb.load())?, layout.sb_dev.load())?;
    let generation = read_int(inode, layout.inode_generation.load())?;
    let before = config::pfn_of(page).wrapping_sub(config::pfn_of(folio));
    Some(FilePage {
        inode: read(inode, layout.inode_ino.load())?,
        index: read(folio, layout.index.load())?.wrapping_add(before),
        dev: u64::from(generation) << 32 | u64::from(dev),
    })
}

/// The int at `offset` in a kernel structure.
#[inline(always)]
pub fn read_int(base: u64, offset: u32) -> Option<u32> {
    // SAFETY: the helper reads kernel memory at any address, or fails.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const u32).ok() }
}

/// The word at `offset` in a kernel structure.
#[inline(always)]
pub fn read(base: u64, offset: u32) -> Option<u64> {
    // SAFETY: the helper reads kernel memory at any address, or fails.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const u64).ok() }
}
