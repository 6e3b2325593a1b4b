//! What the kernel half has to know of structures of the running kernel: offsets in bytes, and numbers of bits. The
//! user half reads them from BTF.

/// Of a folio.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolioLayout {
    /// `offsetof(struct folio, flags)`: a word.
    pub flags: u32,
    /// `PG_head`: the bit of it that a folio of more than one page has.
    pub head_bit: u32,
    /// `PG_swapbacked`: the bit of it that anonymous and shared memory have, and page cache of files has not.
    pub swapbacked_bit: u32,
    /// `offsetof(struct folio, _nr_pages)`: an int, the pages of a folio of more than one.
    pub nr_pages: u32,
    /// `offsetof(struct folio, mapping)`: a pointer to a `struct address_space`.
    pub mapping: u32,
    /// `offsetof(struct address_space, flags)`: a word.
    pub mapping_flags: u32,
    /// `AS_UNEVICTABLE`: the bit of it that a mapping has of which no page can be taken back.
    pub unevictable_bit: u32,
    /// `1 << AS_KERNEL_FILE`, if there is that bit: a mapping that is charged to nobody has it (Linux 6.18).
    pub kernel_file: u32,
    /// `offsetof(struct address_space, host)`: a pointer to the `struct inode`.
    pub mapping_host: u32,
    /// `offsetof(struct inode, i_sb)`: a pointer to its `struct super_block`.
    pub inode_sb: u32,
    /// `offsetof(struct super_block, s_magic)`: a word, what kind of file system it is.
    pub sb_magic: u32,
    /// `offsetof(struct folio, index)`: a word, where in the file it begins, in pages.
    pub index: u32,
    /// `offsetof(struct inode, i_ino)`: a word.
    pub inode_ino: u32,
    /// `offsetof(struct inode, i_generation)`: an int.
    pub inode_generation: u32,
    /// `offsetof(struct inode, i_size)`: a word.
    pub inode_size: u32,
    /// `offsetof(struct super_block, s_dev)`: an int.
    pub sb_dev: u32,
}

impl FolioLayout {
    /// Where the kernel does not say.
    pub const UNKNOWN: Self = Self {
        flags: 0,
        head_bit: 0,
        swapbacked_bit: 0,
        nr_pages: 0,
        mapping: 0,
        mapping_flags: 0,
        unevictable_bit: 0,
        kernel_file: 0,
        mapping_host: 0,
        inode_sb: 0,
        sb_magic: 0,
        index: 0,
        inode_ino: 0,
        inode_generation: 0,
        inode_size: 0,
        sb_dev: 0,
    };
}

/// Of a `struct page`: what says that it is free.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// `offsetof(struct page, _refcount)`: an int, 0 of a page that is free.
    pub refcount: u32,
    /// `offsetof(struct page, compound_head)`: a word, odd of all pages but the first of one that is several.
    pub compound_head: u32,
    /// `offsetof(struct page, page_type)`: an int, of which all bits are set if the page has no type.
    pub page_type: u32,
    /// Bits of the type that say that it is the first page of a block of the buddy allocator.
    pub buddy_mask: u32,
    /// What they are then.
    pub buddy: u32,
}

impl PageLayout {
    /// Where the kernel does not say: no page is seen to be free.
    pub const UNKNOWN: Self =
        Self { refcount: 0, compound_head: 0, page_type: 0, buddy_mask: 0, buddy: 1 };

    /// Whether a page is free with these. The kernel has pages in use that have no count, slab for one; those have a type.
    #[inline(always)]
    pub const fn is_free(self, refcount: u32, compound_head: u64, page_type: u32) -> bool {
        let is_untyped = page_type == u32::MAX;
        refcount == 0
            && compound_head & 1 == 0
            && (is_untyped || page_type & self.buddy_mask == self.buddy)
    }
}

/// Flags of an allocation (`gfp_t`) by which it is known whether the kernel charges it. Macros before Linux 6.9.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GfpFlags {
    /// `__GFP_ACCOUNT`: kernel memory that is charged, to the task that allocates it.
    pub account: u32,
    /// `__GFP_MOVABLE | __GFP_HARDWALL`: memory that is mapped or cached for user space has both. What drivers have for
    /// themselves lacks the second (zram, zswap), and what cannot be moved the first (`docs/adr/0023-what-is-charged.md`).
    pub user: u32,
    /// `__GFP_NOMEMALLOC | __GFP_NORETRY`: of several pages at once, which the kernel can do without, at least one;
    /// huge pages of hugetlb, which are nobody's, have neither.
    pub large: u32,
    /// `__GFP_COMP`: several pages are to be one.
    pub compound: u32,
}

impl GfpFlags {
    /// Where the kernel has not been asked: nothing is charged.
    pub const UNKNOWN: Self = Self { account: 0, user: u32::MAX, large: 0, compound: 0 };

    /// Whether it is memory of the kernel's own that is charged.
    #[inline(always)]
    pub const fn is_kernels(self, gfp: u32) -> bool {
        gfp & self.account != 0
    }

    /// Whether the kernel charges an allocation of `1 << order` pages with these flags. Page cache for which this says no
    /// is charged when it is added to the cache: [`added`](crate::file::added).
    #[inline(always)]
    pub const fn is_charged(self, gfp: u32, order: u32) -> bool {
        let is_user = gfp & self.user == self.user && (order == 0 || gfp & self.large != 0);
        is_user || self.is_kernels(gfp)
    }
}

/// The way from a `struct mm_struct` of the running kernel to the cgroups of whom it belongs to: offsets in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOwner {
    /// `offsetof(struct task_struct, mm)`: a pointer to the `struct mm_struct` that a task uses.
    pub task_mm: u32,
    /// `offsetof(struct task_struct, group_leader)`: a pointer to a task.
    pub task_group_leader: u32,
    /// `offsetof(struct mm_struct, owner)`: a pointer to a task.
    pub mm_owner: u32,
    /// `offsetof(struct task_struct, cgroups)`: a pointer to its `struct css_set`.
    pub task_cgroups: u32,
    /// `offsetof(struct css_set, dfl_cgrp)`: a pointer to its cgroup v2.
    pub css_set_dfl_cgrp: u32,
    /// `offsetof(struct cgroup, level)`: an int, 0 at the root.
    pub cgroup_level: u32,
    /// `offsetof(struct cgroup, ancestors)`: a pointer to one for each level, from the root to itself.
    pub cgroup_ancestors: u32,
}

impl MemoryOwner {
    /// Where the kernel does not say: without CONFIG_MEMCG, and before Linux 6.1. Whoever allocates is charged then.
    pub const UNKNOWN: Self = Self {
        task_mm: 0,
        task_group_leader: 0,
        mm_owner: 0,
        task_cgroups: 0,
        css_set_dfl_cgrp: 0,
        cgroup_level: 0,
        cgroup_ancestors: 0,
    };
}

/// The kernel's own stocks, and the way to those of the CPU that a program runs on: offsets in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelStocks {
    /// `offsetof(struct task_struct, se.cfs_rq)`: a pointer to the `struct cfs_rq` of this CPU that the task is on.
    pub task_cfs_rq: u32,
    /// `offsetof(struct cfs_rq, rq)`: a pointer to the CPU's `struct rq`, the per-CPU variable `runqueues`.
    pub cfs_rq_rq: u32,
    /// `offsetof(struct rq, cpu)`: an int, the CPU's number.
    pub rq_cpu: u32,
    /// `offsetof(struct mem_cgroup, css.cgroup)`: a pointer to a `struct cgroup`.
    pub memcg_cgroup: u32,
    /// `offsetof(struct obj_cgroup, memcg)`: a pointer to a `struct mem_cgroup`.
    pub objcg_memcg: u32,
    /// Number of the hierarchy that has the memory controller: 0 for cgroup v2.
    pub hierarchy: u32,
    /// Pages, by `struct mem_cgroup`.
    pub pages: KernelSlots,
    /// Bytes of pages that are charged, by `struct obj_cgroup`.
    pub bytes: KernelSlots,
}

/// Slots of one of the kernel's stocks.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSlots {
    /// From `runqueues` to the per-CPU variable that has them, wrapping.
    pub from_rq: u64,
    /// How many: up to [`MAX_KERNEL_SLOTS`]; 0 if there is no such stock.
    pub nr_slots: u32,
    /// Where in it the pointers begin that say whose each is; null is nobody's.
    pub cached: u32,
    /// Where the numbers begin that say how much is left in each.
    pub left: u32,
    /// Bytes of such a number: 1, 2, 4 or 8.
    pub left_size: u32,
}

/// Slots that one of the kernel's stocks can have here: 7 of pages and 5 of bytes are the most so far.
pub const MAX_KERNEL_SLOTS: u32 = 8;

impl KernelStocks {
    /// Where the kernel has not been asked: no stock has a slot.
    pub const UNKNOWN: Self = Self {
        task_cfs_rq: 0,
        cfs_rq_rq: 0,
        rq_cpu: 0,
        memcg_cgroup: 0,
        objcg_memcg: 0,
        hierarchy: 0,
        pages: KernelSlots::NONE,
        bytes: KernelSlots::NONE,
    };
}

impl KernelSlots {
    /// Of a stock that is not there.
    pub const NONE: Self = Self { from_rq: 0, nr_slots: 0, cached: 0, left: 0, left_size: 8 };

    /// The bits of a word that a number in it has, which begins where the word does.
    #[inline(always)]
    pub const fn mask(self) -> u64 {
        match self.left_size {
            1 => u8::MAX as u64,
            2 => u16::MAX as u64,
            4 => u32::MAX as u64,
            _ => u64::MAX,
        }
    }
}

const _: () = assert!(size_of::<KernelStocks>() == 72);
