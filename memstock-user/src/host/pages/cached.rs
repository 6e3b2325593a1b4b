//! Owns which page cache could be dropped, by the bits of `/proc/kpageflags`. Must not open anything.

/// Part of the kernel's interface (`include/uapi/linux/kernel-page-flags.h`), and `KPF_MLOCKED`, the same since 2.6.31.
mod bit {
    pub(super) const UPTODATE: u64 = 1 << 3;
    pub(super) const DIRTY: u64 = 1 << 4;
    pub(super) const LRU: u64 = 1 << 5;
    pub(super) const ACTIVE: u64 = 1 << 6;
    pub(super) const WRITEBACK: u64 = 1 << 8;
    pub(super) const COMPOUND_HEAD: u64 = 1 << 15;
    pub(super) const COMPOUND_TAIL: u64 = 1 << 16;
    /// Mapped, or not droppable page cache of a file: slab, free, anonymous, in the swap cache, shared memory, hugetlb,
    /// unevictable, page table, locked.
    pub(super) const KEPT: u64 = 1 << 11
        | 1 << 7
        | 1 << 10
        | 1 << 12
        | 1 << 13
        | 1 << 14
        | 1 << 17
        | 1 << 18
        | 1 << 26
        | 1 << 33;
}

/// Page cache that nobody has mapped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cached {
    /// Clean, and on the inactive list, which the kernel reclaims first.
    Inactive,
    /// Clean, and on the active list.
    Active,
    /// Dirty: to be written before it can be dropped.
    Dirty,
}

impl Cached {
    /// The state of each page, from the words of consecutive pages; none for other pages, for pages under writeback,
    /// and for the rest of a folio that began before.
    pub fn of(words: &[u64]) -> Vec<Option<Self>> {
        let mut head = None;
        let each = words.iter().map(|&word| {
            // Before Linux 6.11, only the word of its first page has the flags of a folio.
            if word & bit::COMPOUND_TAIL != 0 {
                return head;
            }
            let state = Self::of_first(word);
            head = state.filter(|_| word & bit::COMPOUND_HEAD != 0);
            state
        });
        each.collect()
    }

    fn of_first(word: u64) -> Option<Self> {
        let is_cache = word & (bit::LRU | bit::UPTODATE) != 0;
        match word {
            _ if !is_cache || word & (bit::KEPT | bit::WRITEBACK) != 0 => None,
            _ if word & bit::DIRTY != 0 => Some(Self::Dirty),
            _ if word & bit::ACTIVE != 0 => Some(Self::Active),
            _ => Some(Self::Inactive),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_folio_is_as_its_first_page() {
        const CACHE: u64 = bit::LRU | bit::UPTODATE;
        let (head, tail) = (bit::COMPOUND_HEAD, bit::COMPOUND_TAIL);
        let words = [
            tail,
            CACHE,
            CACHE | bit::ACTIVE | head,
            tail,
            CACHE | bit::DIRTY | tail,
            CACHE | bit::DIRTY | bit::ACTIVE,
            tail,
            CACHE | bit::WRITEBACK,
            CACHE | 1 << 11,
            0,
        ];
        let (active, dirty) = (Some(Cached::Active), Some(Cached::Dirty));
        let inactive = Some(Cached::Inactive);
        let states = [None, inactive, active, active, active, dirty, None, None, None, None];
        assert_eq!(Cached::of(&words), states);
    }
}
