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
    };
}
