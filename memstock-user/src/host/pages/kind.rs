//! Owns what a page is used for, by the bits of `/proc/kpageflags`. Must not open anything.

/// Bits that are part of the kernel's interface (`include/uapi/linux/kernel-page-flags.h`), and
/// `KPF_RESERVED`, which is "for kernel hacking" and has been the same since 2.6.31.
mod bit {
    pub(super) const DIRTY: u64 = 1 << 4;
    pub(super) const WRITEBACK: u64 = 1 << 8;
    pub(super) const UPTODATE: u64 = 1 << 3;
    pub(super) const LRU: u64 = 1 << 5;
    pub(super) const SLAB: u64 = 1 << 7;
    pub(super) const BUDDY: u64 = 1 << 10;
    pub(super) const ANON: u64 = 1 << 12;
    pub(super) const SWAPCACHE: u64 = 1 << 13;
    pub(super) const SWAPBACKED: u64 = 1 << 14;
    pub(super) const HUGE: u64 = 1 << 17;
    pub(super) const UNEVICTABLE: u64 = 1 << 18;
    pub(super) const HWPOISON: u64 = 1 << 19;
    pub(super) const NOPAGE: u64 = 1 << 20;
    pub(super) const OFFLINE: u64 = 1 << 23;
    pub(super) const ZERO_PAGE: u64 = 1 << 24;
    pub(super) const PGTABLE: u64 = 1 << 26;
    pub(super) const RESERVED: u64 = 1 << 32;
    /// "For kernel hacking" as well, and the same since 2.6.31.
    pub(super) const MLOCKED: u64 = 1 << 33;
}

/// The first rule of which a page has a bit decides its kind.
///
/// Typed pages come before user pages: in place of a mapping they store other things, which can look like `KPF_ANON`.
const RULES: [(u64, Kind); 10] = [
    (bit::NOPAGE, Kind::Nopage),
    (bit::BUDDY, Kind::Buddy),
    (bit::SLAB, Kind::Slab),
    (bit::PGTABLE, Kind::PageTable),
    (bit::HUGE, Kind::Hugetlb),
    (bit::OFFLINE | bit::RESERVED | bit::HWPOISON, Kind::Reserved),
    // The huge zero page; the small one is reserved. Both are mapped by many and belong to nobody.
    (bit::ZERO_PAGE, Kind::Kernel),
    // Pages read ahead from swap have no `KPF_ANON` until they are mapped. Shared memory on its way to swap looks the
    // same.
    (bit::ANON | bit::SWAPCACHE, Kind::Anonymous),
    (bit::SWAPBACKED, Kind::Shared),
    // New pages wait in a per-CPU batch before they are put on the LRU (mm/swap.c).
    (bit::LRU | bit::UPTODATE, Kind::File),
];

/// What a page is used for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Kind {
    /// Private memory of processes, small or huge, also if merged by KSM or in the swap cache.
    Anonymous,
    /// Page cache of files and block devices.
    File,
    /// Page cache without a disk below it: tmpfs, memfd, System V and anonymous shared memory.
    Shared,
    /// The kernel's small objects.
    Slab,
    /// Page tables of processes and of the kernel.
    #[strum(serialize = "page table")]
    PageTable,
    /// Free in the page allocator.
    #[strum(serialize = "free")]
    Buddy,
    /// In hugetlb's pool, used or not.
    Hugetlb,
    /// Withheld from the page allocator: the kernel's image, firmware, a balloon, broken memory.
    Reserved,
    /// Anything else: the kernel's own, a driver's, free in a CPU's list, or not initialised yet
    /// (`CONFIG_DEFERRED_STRUCT_PAGE_INIT`).
    Kernel,
    /// There is no page with this number. Newer kernels no longer report this (6.18 does not: `kpage_read`); a hole
    /// looks like [`Kind::Kernel`] there.
    #[strum(serialize = "no page")]
    Nopage,
}

impl Kind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The kind of a page, from its word in `/proc/kpageflags` (`stable_page_flags` in fs/proc/page.c). A page of a
    /// huge page has the flags of the whole.
    ///
    /// A page of the page cache is on the LRU or up to date; before its first read or write it can be neither, and is
    /// taken for [`Kind::Kernel`]. `KPF_MMAP` does not help: drivers map their own pages, too.
    pub fn of(flags: u64) -> Self {
        let rule = RULES.iter().find(|(bits, _)| flags & bits != 0);
        rule.map_or(Self::Kernel, |&(_, kind)| kind)
    }

    /// Whether a page is page cache of an evictable mapping, from the same word; none if unknown: the mapping of a page
    /// that is locked into memory may be unevictable as well (`memfd_secret`).
    pub fn is_file(flags: u64) -> Option<bool> {
        let (is_unevictable, is_locked) =
            (flags & bit::UNEVICTABLE != 0, flags & bit::MLOCKED != 0);
        match Self::of(flags) {
            Self::File if is_unevictable && is_locked => None,
            Self::File => Some(!is_unevictable),
            _ => Some(false),
        }
    }

    /// Whether a page is dirty or under writeback, from the same word.
    pub fn is_dirty(flags: u64) -> bool {
        flags & (bit::DIRTY | bit::WRITEBACK) != 0
    }

    /// Whether a page is locked into memory (`mlock`), from the same word.
    pub fn is_locked(flags: u64) -> bool {
        flags & bit::MLOCKED != 0
    }

    /// Whether a page of this kind is memory of processes, charged to memory cgroups page by page and reclaimable:
    /// anonymous, file and shared memory.
    ///
    /// Kernel memory is not, although the kernel charges some of it; nor are hugetlb pages, which come from a pool of
    /// their own.
    pub const fn is_user(self) -> bool {
        matches!(self, Self::Anonymous | Self::File | Self::Shared)
    }

    /// Its name, as shown.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_apart() {
        const COMPOUND_HEAD: u64 = 1 << 15;
        const MMAP: u64 = 1 << 11;
        for (flags, kind) in [
            (0, Kind::Kernel),
            (MMAP, Kind::Kernel),
            (COMPOUND_HEAD, Kind::Kernel),
            (bit::NOPAGE, Kind::Nopage),
            (bit::BUDDY, Kind::Buddy),
            (bit::SLAB | bit::ANON, Kind::Slab),
            (bit::PGTABLE | bit::ANON, Kind::PageTable),
            (bit::HUGE | bit::ANON | COMPOUND_HEAD, Kind::Hugetlb),
            (bit::OFFLINE, Kind::Reserved),
            (bit::RESERVED, Kind::Reserved),
            (bit::RESERVED | bit::ZERO_PAGE | MMAP, Kind::Reserved),
            (bit::ZERO_PAGE | COMPOUND_HEAD | bit::UPTODATE, Kind::Kernel),
            (bit::HWPOISON | bit::ANON, Kind::Reserved),
            // Not on the LRU yet.
            (bit::ANON | bit::SWAPBACKED | MMAP, Kind::Anonymous),
            (bit::SWAPCACHE | bit::SWAPBACKED, Kind::Anonymous),
            (bit::SWAPBACKED | bit::LRU | bit::UPTODATE, Kind::Shared),
            (bit::LRU, Kind::File),
            (bit::UPTODATE, Kind::File),
        ] {
            assert_eq!(Kind::of(flags), kind, "{flags:#x}");
        }
    }

    #[test]
    fn page_cache_can_be_taken_back_unless_its_mapping_forbids() {
        let cache = bit::LRU | bit::UPTODATE;
        for (flags, is_file) in [
            (cache, Some(true)),
            (cache | bit::UNEVICTABLE | bit::MLOCKED, None),
            // Such as ramfs.
            (cache | bit::UNEVICTABLE, Some(false)),
            (cache | bit::SWAPBACKED, Some(false)),
            (cache | bit::ANON, Some(false)),
        ] {
            assert_eq!(Kind::is_file(flags), is_file, "{flags:x}");
        }
    }
}
