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
