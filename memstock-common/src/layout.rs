//! What the kernel half needs to know about structures of the running kernel: offsets in bytes, and bit numbers. The
//! user half reads them from BTF.

/// Layout of a folio and of what it leads to. The kernel half loads each field by itself: `V` is a global there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolioLayout<V = u32> {
    /// `offsetof(struct folio, flags)`: a word.
    pub flags: V,
    /// `PG_head`: the bit of `flags` that a folio of more than one page has.
    pub head_bit: V,
    /// `PG_swapbacked`: the bit of `flags` that anonymous and shared memory have, and page cache of files does not.
    pub swapbacked_bit: V,
    /// `offsetof(struct folio, _nr_pages)`: an int, the number of pages of a folio of more than one.
    pub nr_pages: V,
    /// `offsetof(struct folio, mapping)`: a pointer to a `struct address_space`.
    pub mapping: V,
    /// `offsetof(struct address_space, flags)`: a word.
    pub mapping_flags: V,
    /// `AS_UNEVICTABLE`: the bit of the mapping's flags that says that none of its pages can be reclaimed.
    pub unevictable_bit: V,
    /// `1 << AS_KERNEL_FILE`, or 0 if the kernel has no such bit: it marks mappings that are charged to nobody (Linux
    /// 6.18).
    pub kernel_file: V,
    /// `offsetof(struct address_space, host)`: a pointer to the `struct inode`.
    pub mapping_host: V,
    /// `offsetof(struct inode, i_sb)`: a pointer to its `struct super_block`.
    pub inode_sb: V,
    /// `offsetof(struct super_block, s_magic)`: a word, the type of the file system.
    pub sb_magic: V,
    /// `offsetof(struct folio, index)`: a word, its offset in the file, in pages.
    pub index: V,
    /// `offsetof(struct inode, i_ino)`: a word.
    pub inode_ino: V,
    /// `offsetof(struct inode, i_generation)`: an int.
    pub inode_generation: V,
    /// `offsetof(struct inode, i_size)`: a word.
    pub inode_size: V,
    /// `offsetof(struct super_block, s_dev)`: an int.
    pub sb_dev: V,
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

/// Layout of a `struct page`: the fields that show that it is free.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// `offsetof(struct page, _refcount)`: an int, 0 if the page is free.
    pub refcount: u32,
    /// `offsetof(struct page, compound_head)`: a word, odd in all pages of a compound page but the first.
    pub compound_head: u32,
    /// `offsetof(struct page, page_type)`: an int with all bits set if the page has no type.
    pub page_type: u32,
    /// Bits of the type that mark the first page of a block of the buddy allocator.
    pub buddy_mask: u32,
    /// The value of these bits in such a page.
    pub buddy: u32,
}

impl PageLayout {
    /// Where the kernel does not say: no page is recognized as free.
    pub const UNKNOWN: Self =
        Self { refcount: 0, compound_head: 0, page_type: 0, buddy_mask: 0, buddy: 1 };

    /// Whether a page with these values is free. Pages in use that have no reference count, such as slab, have a type.
    #[inline(always)]
    pub const fn is_free(self, refcount: u32, compound_head: u64, page_type: u32) -> bool {
        let is_untyped = page_type == u32::MAX;
        refcount == 0
            && compound_head & 1 == 0
            && (is_untyped || page_type & self.buddy_mask == self.buddy)
    }
}

/// Flags of a task (`include/linux/sched.h`): it reclaims; it does no I/O to get memory; it pins memory for long.
const PF_MEMALLOC: u64 = 0x800;
const PF_MEMALLOC_NOIO: u64 = 0x8_0000;
const PF_MEMALLOC_PIN: u64 = 0x1000_0000;

/// Flags of an allocation (`gfp_t`) that tell whether the kernel charges it. Macros before Linux 6.9.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GfpFlags {
    /// `__GFP_ACCOUNT`: kernel memory that is charged, to the task that allocates it.
    pub account: u32,
    /// `__GFP_MOVABLE | __GFP_HARDWALL | __GFP_IO`: memory that is mapped or cached for user space has all. Drivers' own
    /// memory lacks the last two (zram, zswap), of which the kernel adds the first as soon as there is a cpuset; memory
    /// that cannot be moved lacks the first (`docs/adr/0023-what-is-charged.md`).
    pub user: u32,
    /// `__GFP_HIGHMEM | __GFP_HARDWALL`: user memory has both. Other memory may have them, too.
    pub high: u32,
    /// `__GFP_MOVABLE`.
    pub movable: u32,
    /// `__GFP_IO`.
    pub io: u32,
    /// `__GFP_NOMEMALLOC | __GFP_NORETRY`: an allocation of several pages that the kernel can do without has at least
    /// one of them; huge pages of hugetlb, which are charged to nobody, have neither.
    pub large: u32,
    /// `__GFP_COMP`: the pages form one compound page.
    pub compound: u32,
}

impl GfpFlags {
    /// Where the flags are not known: nothing is charged.
    pub const UNKNOWN: Self = Self {
        account: 0,
        user: u32::MAX,
        high: u32::MAX,
        movable: 0,
        io: 0,
        large: 0,
        compound: 0,
    };

    /// Whether it is kernel memory that is charged.
    #[inline(always)]
    pub const fn is_kernels(self, gfp: u32) -> bool {
        gfp & self.account != 0
    }

    /// Whether the kernel charges an allocation of `1 << order` pages with these flags. Page cache for which this says
    /// no is charged when it is added to the cache: [`added`](crate::file::added).
    #[inline(always)]
    pub const fn is_charged(self, gfp: u32, order: u32) -> bool {
        self.is_users(gfp, self.user, order) || self.is_kernels(gfp)
    }

    /// Whether it may be user memory without some of the flags of user memory.
    #[inline(always)]
    pub const fn may_be_users(self, gfp: u32, order: u32) -> bool {
        self.is_users(gfp, self.high, order)
    }

    /// Whether the flags of the task explain those that are missing (`current_gfp_context` in
    /// `include/linux/sched/mm.h`): it may not move what it pins for long (io_uring, RDMA, VFIO), and does no I/O to get
    /// memory. Reclaim may not do that either, but allocates for drivers: zram.
    #[inline(always)]
    pub const fn is_explained(self, gfp: u32, task: u64) -> bool {
        let is_still = task & PF_MEMALLOC_PIN != 0;
        let has_no_io = task & (PF_MEMALLOC_NOIO | PF_MEMALLOC) == PF_MEMALLOC_NOIO;
        (gfp & self.movable != 0 || is_still) && (gfp & self.io != 0 || has_no_io)
    }

    #[inline(always)]
    const fn is_users(self, gfp: u32, flags: u32, order: u32) -> bool {
        gfp & flags == flags && (order == 0 || gfp & self.large != 0)
    }
}

/// The way from a `struct mm_struct` to the cgroups of its owner: offsets in bytes.
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
    /// `offsetof(struct task_struct, flags)`: an unsigned int.
    pub task_flags: u32,
    /// `offsetof(struct css_set, dfl_cgrp)`: a pointer to its cgroup v2.
    pub css_set_dfl_cgrp: u32,
    /// `offsetof(struct cgroup, level)`: an int, 0 at the root.
    pub cgroup_level: u32,
    /// `offsetof(struct cgroup, ancestors)`: a pointer for each level, from the root to the cgroup itself.
    pub cgroup_ancestors: u32,
}

impl MemoryOwner {
    /// Where the kernel does not say: without CONFIG_MEMCG, and before Linux 6.1. The allocating task is then charged.
    pub const UNKNOWN: Self = Self {
        task_mm: 0,
        task_group_leader: 0,
        mm_owner: 0,
        task_cgroups: 0,
        task_flags: 0,
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
    /// Distance from `runqueues` to the per-CPU variable with the slots, wrapping.
    pub from_rq: u64,
    /// Number of slots, up to [`MAX_KERNEL_SLOTS`]; 0 if there is no such stock.
    pub nr_slots: u32,
    /// Offset of the array of pointers to the owner of each slot; null for none.
    pub cached: u32,
    /// Offset of the array of amounts left in each.
    pub left: u32,
    /// Bytes of such an amount: 1, 2, 4 or 8.
    pub left_size: u32,
}

/// Slots that one of the kernel's stocks can have here: the most so far are 7 of pages and 5 of bytes.
pub const MAX_KERNEL_SLOTS: u32 = 8;

impl KernelStocks {
    /// Where the layout is not known: no stock has a slot.
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
    /// A stock that does not exist.
    pub const NONE: Self = Self { from_rq: 0, nr_slots: 0, cached: 0, left: 0, left_size: 8 };

    /// Mask for an amount read as a word: the amount is in the low bits.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_are_missing_have_to_be_explained() {
        let [high, movable, io, hardwall] = [1, 2, 4, 8];
        let flags = GfpFlags {
            user: movable | hardwall | io,
            high: high | hardwall,
            movable,
            io,
            ..GfpFlags::UNKNOWN
        };
        let all = high | movable | io | hardwall;
        let is_charged = |gfp, task| {
            flags.is_charged(gfp, 0) || flags.may_be_users(gfp, 0) && flags.is_explained(gfp, task)
        };
        let (pins, no_io) = (PF_MEMALLOC_PIN, PF_MEMALLOC_NOIO);
        for (gfp, task, due) in [
            (all, 0, true),
            (all & !movable, 0, false),
            (all & !movable, pins, true),
            (all & !io, 0, false),
            (all & !io, no_io, true),
            // zram, as a task reclaims.
            (all & !io, no_io | PF_MEMALLOC, false),
            (all & !io & !movable, pins, false),
            (all & !io & !movable, pins | no_io, true),
            // Other memory that cannot move.
            (all & !high & !movable, pins, false),
        ] {
            assert_eq!(is_charged(gfp, task), due, "{gfp:x} {task:x}");
        }
        let unknown = GfpFlags::UNKNOWN;
        assert!(!unknown.is_charged(all, 0) && !unknown.may_be_users(all, 0));
    }
}
