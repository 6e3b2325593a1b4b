//! Pages and folios of the running kernel: whether they are free, how large they are, and what they are for.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use memstock_common::file::FilePage;
use memstock_common::layout::PageLayout;

use crate::config;

/// How many pages a folio has.
#[inline(always)]
pub fn nr_pages(folio: u64) -> Option<u32> {
    nr_pages_by(folio, read(folio, config::folio()?.flags.load())?)
}

/// The same, from its flags.
#[inline(always)]
fn nr_pages_by(folio: u64, flags: u64) -> Option<u32> {
    let layout = config::folio()?;
    if flags >> (layout.head_bit.load() & 63) & 1 == 0 {
        return Some(1);
    }
    read_int(folio, layout.nr_pages.load())
}

/// How many pages page cache has, and whether it can be reclaimed: its mapping is not unevictable, as those of ramfs,
/// `memfd_secret` and AIO rings are.
#[inline(always)]
pub fn extent(folio: u64) -> Option<(u32, bool)> {
    let layout = config::folio()?;
    let (flags, mapping) = flags_and_mapping(folio)?;
    let is_unevictable =
        read(mapping, layout.mapping_flags.load())? >> (layout.unevictable_bit.load() & 63) & 1;
    Some((nr_pages_by(folio, flags)?, is_unevictable == 0))
}

/// Both with one call of the helper if they are in the same four words, as on all kernels so far: where returns are
/// expensive (SRSO), a call takes 35 to 50 ns.
#[inline(always)]
fn flags_and_mapping(folio: u64) -> Option<(u64, u64)> {
    const WORD: u32 = size_of::<u64>() as u32;
    let layout = config::folio()?;
    let (flags, mapping) = (layout.flags.load(), layout.mapping.load());
    if mapping.wrapping_sub(flags) == 3 * WORD {
        // SAFETY: the helper reads kernel memory at any address, or fails.
        let words: [u64; 4] =
            unsafe { bpf_probe_read_kernel((folio + u64::from(flags)) as *const _).ok()? };
        return Some((words[0], words[3]));
    }
    Some((read(folio, flags)?, read(folio, mapping)?))
}

/// `f_type` of hugetlbfs in statfs(2) (`include/uapi/linux/magic.h`).
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Whether page cache of its mapping is charged to the task that adds it: not huge pages of hugetlbfs, and not a file
/// system's own data (`filemap_add_folio` in `mm/filemap.c`).
#[inline(always)]
pub fn is_charged(folio: u64) -> Option<bool> {
    let layout = config::folio()?;
    let mapping = read(folio, layout.mapping.load())?;
    if read(mapping, layout.mapping_flags.load())? & u64::from(layout.kernel_file.load()) != 0 {
        return Some(false);
    }
    let super_block = read(read(mapping, layout.mapping_host.load())?, layout.inode_sb.load())?;
    Some(read(super_block, layout.sb_magic.load())? != HUGETLBFS_MAGIC)
}

/// Whether a folio that is in use is page cache of a file, and not anonymous or shared memory: `folio_is_file_lru`.
#[inline(always)]
pub fn is_file(folio: u64) -> Option<bool> {
    let layout = config::folio()?;
    Some(read(folio, layout.flags.load())? >> (layout.swapbacked_bit.load() & 63) & 1 == 0)
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
