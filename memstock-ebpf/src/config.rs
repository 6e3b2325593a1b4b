//! What the user half sets once, before load. Read-only data: the verifier knows the values and drops the code that
//! they rule out.

use aya_ebpf::Global;
use memstock_common::layout::{FolioLayout, GfpFlags, KernelStocks, MemoryOwner, PageLayout};
use memstock_common::record::MAX_BLOCKS;
use memstock_common::{DEFAULT_BATCH, MAX_DEPTH};

/// Pages charged at once on a miss, 1..=1024.
#[unsafe(no_mangle)]
static BATCH: Global<u32> = Global::new(DEFAULT_BATCH);
/// Freed pages that a stock keeps: `BATCH`, or 0 to stock nothing.
#[unsafe(no_mangle)]
static STOCK_PAGES: Global<u32> = Global::new(DEFAULT_BATCH);
/// Freed pages uncharged at once: `BATCH`, or another number in benchmarks.
#[unsafe(no_mangle)]
static UNCHARGE_BATCH: Global<u32> = Global::new(DEFAULT_BATCH);
/// Stock slots per CPU.
#[unsafe(no_mangle)]
static SLOTS: Global<u32> = Global::new(1);
/// 1 to charge memory+swap as well.
#[unsafe(no_mangle)]
static MEMSW: Global<u32> = Global::new(0);
/// Never set: a constant that LLVM cannot use to unroll loops, but the verifier knows.
#[unsafe(no_mangle)]
static DEPTH: Global<u32> = Global::new(MAX_DEPTH);
/// Address of the `struct page` of page frame 0, whether that exists or not.
#[unsafe(no_mangle)]
static PAGE_BASE: Global<u64> = Global::new(0);
/// Bytes of a `struct page`.
#[unsafe(no_mangle)]
static PAGE_STRUCT_SIZE: Global<u64> = Global::new(64);
/// log2 of that size, or 64 when it is no power of two.
#[unsafe(no_mangle)]
static PAGE_STRUCT_SHIFT: Global<u32> = Global::new(6);
/// The flags of an allocation that tell whether the kernel charges it.
#[unsafe(no_mangle)]
static GFP_FLAGS: Global<GfpFlags> = Global::new(GfpFlags::UNKNOWN);
/// Byte offset of `kn` in `struct cgroup`.
#[unsafe(no_mangle)]
static CGROUP_KN: Global<u32> = Global::new(0);
/// Byte offset of `id` in `struct kernfs_node`.
#[unsafe(no_mangle)]
static KERNFS_ID: Global<u32> = Global::new(0);
/// Byte offset of `root` in `struct cgroup`.
#[unsafe(no_mangle)]
static CGROUP_ROOT: Global<u32> = Global::new(0);
/// Byte offset of `hierarchy_id` in `struct cgroup_root`.
#[unsafe(no_mangle)]
static HIERARCHY_ID: Global<u32> = Global::new(0);
/// The way from an `mm_struct` to the cgroups of its owner.
#[unsafe(no_mangle)]
static MEMORY_OWNER: Global<MemoryOwner> = Global::new(MemoryOwner::UNKNOWN);
/// 1 if `collapsed` is attached, and can find the owner of a huge page.
#[unsafe(no_mangle)]
static TRACKS_COLLAPSES: Global<u32> = Global::new(0);
/// 1 if tasks can preempt the programs.
#[unsafe(no_mangle)]
static IS_PREEMPTED: Global<u32> = Global::new(0);
/// Layout of `struct folio`. Loads are volatile, and a load of the whole would load every field.
#[unsafe(no_mangle)]
static FOLIO: FolioLayout<Global<u32>> = FolioLayout {
    flags: Global::new(0),
    head_bit: Global::new(0),
    swapbacked_bit: Global::new(0),
    nr_pages: Global::new(0),
    mapping: Global::new(0),
    mapping_flags: Global::new(0),
    unevictable_bit: Global::new(0),
    kernel_file: Global::new(0),
    mapping_host: Global::new(0),
    inode_sb: Global::new(0),
    sb_magic: Global::new(0),
    index: Global::new(0),
    inode_ino: Global::new(0),
    inode_generation: Global::new(0),
    inode_size: Global::new(0),
    sb_dev: Global::new(0),
};
/// Layout of `struct page`.
#[unsafe(no_mangle)]
static PAGE_LAYOUT: Global<PageLayout> = Global::new(PageLayout::UNKNOWN);
/// The kernel's own stocks, and the way to them.
#[unsafe(no_mangle)]
static KERNEL_STOCKS: Global<KernelStocks> = Global::new(KernelStocks::UNKNOWN);
/// The id, in its PID namespace, of the thread whose allocations `learn` reports.
#[unsafe(no_mangle)]
static LEARN_FROM: Global<u32> = Global::new(0);
/// Device of that namespace's file, in the kernel's encoding.
#[unsafe(no_mangle)]
static PID_NS_DEV: Global<u32> = Global::new(0);
/// Inode of that file.
#[unsafe(no_mangle)]
static PID_NS_INO: Global<u64> = Global::new(0);

/// Id of the cgroup that is recorded.
#[unsafe(no_mangle)]
static RECORDED_ID: Global<u64> = Global::new(0);
/// Its level below the root.
#[unsafe(no_mangle)]
static RECORDED_LEVEL: Global<u32> = Global::new(0);
/// Byte offset of `tgid` in `struct task_struct`.
#[unsafe(no_mangle)]
static TASK_TGID: Global<u32> = Global::new(0);
/// log2 of the bytes of a page.
#[unsafe(no_mangle)]
static PAGE_SHIFT: Global<u32> = Global::new(12);
/// Like `DEPTH`, for blocks.
#[unsafe(no_mangle)]
static BLOCKS: Global<u32> = Global::new(MAX_BLOCKS);

/// Pages charged at once on a miss.
#[inline(always)]
pub fn batch() -> u32 {
    BATCH.load()
}

/// Freed pages that a stock keeps.
#[inline(always)]
pub fn stock_pages() -> u32 {
    STOCK_PAGES.load()
}

/// Freed pages uncharged at once.
#[inline(always)]
pub fn uncharge_batch() -> u32 {
    UNCHARGE_BATCH.load()
}

/// Stock slots per CPU.
#[inline(always)]
pub fn slots() -> u32 {
    SLOTS.load()
}

/// Whether memory+swap is charged as well.
#[inline(always)]
pub fn memsw() -> bool {
    MEMSW.load() != 0
}

/// Bound of the walks up the hierarchy.
#[inline(always)]
pub fn max_depth() -> u32 {
    DEPTH.load()
}

/// Number of the page frame with this `struct page`.
#[inline(always)]
pub fn pfn_of(page: u64) -> u64 {
    let offset = page.wrapping_sub(PAGE_BASE.load());
    // The verifier knows the shift and drops the other branch.
    match PAGE_STRUCT_SHIFT.load() {
        shift @ 0..64 => offset >> shift,
        _ => offset.checked_div(PAGE_STRUCT_SIZE.load()).unwrap_or(u64::MAX),
    }
}

/// The `struct page` of the page frame with this number.
#[inline(always)]
pub fn page_of(pfn: u64) -> u64 {
    PAGE_BASE.load().wrapping_add(pfn.wrapping_mul(PAGE_STRUCT_SIZE.load()))
}

/// The flags of an allocation that tell whether the kernel charges it.
#[inline(always)]
pub fn gfp_flags() -> GfpFlags {
    GFP_FLAGS.load()
}

/// Byte offset of `kn` in `struct cgroup`.
#[inline(always)]
pub fn cgroup_kn() -> u64 {
    CGROUP_KN.load().into()
}

/// Byte offset of `id` in `struct kernfs_node`.
#[inline(always)]
pub fn kernfs_id() -> u64 {
    KERNFS_ID.load().into()
}

/// Byte offset of `root` in `struct cgroup`.
#[inline(always)]
pub fn cgroup_root() -> u64 {
    CGROUP_ROOT.load().into()
}

/// Byte offset of `hierarchy_id` in `struct cgroup_root`.
#[inline(always)]
pub fn hierarchy_id() -> u64 {
    HIERARCHY_ID.load().into()
}

/// Whether `collapsed` can find the owner of a huge page.
#[inline(always)]
pub fn tracks_collapses() -> bool {
    TRACKS_COLLAPSES.load() != 0
}

/// Whether tasks can preempt the programs.
#[inline(always)]
pub fn is_preempted() -> bool {
    IS_PREEMPTED.load() != 0
}

/// The way from an `mm_struct` to the cgroups of its owner.
#[inline(always)]
pub fn memory_owner() -> MemoryOwner {
    MEMORY_OWNER.load()
}

/// Layout of `struct folio`; none if the kernel does not say.
#[inline(always)]
pub fn folio() -> Option<&'static FolioLayout<Global<u32>>> {
    // The mapping is never the first field of a folio, so 0 is what the user half has not set.
    (FOLIO.mapping.load() != 0).then_some(&FOLIO)
}

/// Layout of `struct page`.
#[inline(always)]
pub fn page_layout() -> PageLayout {
    PAGE_LAYOUT.load()
}

/// The kernel's own stocks, and the way to them.
#[inline(always)]
pub fn kernel_stocks() -> KernelStocks {
    KERNEL_STOCKS.load()
}

/// The id, in its PID namespace, of the thread whose allocations `learn` reports.
#[inline(always)]
pub fn learn_from() -> u32 {
    LEARN_FROM.load()
}

/// Device and inode of that namespace's file.
#[inline(always)]
pub fn pid_ns() -> (u64, u64) {
    (PID_NS_DEV.load().into(), PID_NS_INO.load())
}

/// The cgroup that is recorded: its level below the root, and its id.
#[inline(always)]
pub fn recorded() -> (i32, u64) {
    (RECORDED_LEVEL.load() as i32, RECORDED_ID.load())
}

/// Byte offset of `tgid` in `struct task_struct`.
#[inline(always)]
pub fn task_tgid() -> u32 {
    TASK_TGID.load()
}

/// Bound of the walks over the blocks of a range.
#[inline(always)]
pub fn max_blocks() -> u32 {
    BLOCKS.load()
}

/// log2 of the bytes of a page.
#[inline(always)]
pub fn page_shift() -> u32 {
    PAGE_SHIFT.load()
}
