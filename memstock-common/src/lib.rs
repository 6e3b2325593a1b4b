//! memstock's algorithm and wire types: everything that decides, and everything that the two halves exchange.
//!
//! The model is the kernel patch "memcg: coalesce charging via percpu storage" (2009) on top of `mm/page_counter.c`.
//! The code here is compiled three times: into the BPF programs, where a [`Word`] is a word of a map changed with BPF
//! atomics; under `loom`, which explores interleavings; and on plain memory, for property tests. It owns no memory and
//! makes no system call: its callers pass what it works on through [`Word`], [`Counters`] and [`Machine`].
//!
//! The life of one page: [`OwnerCache`] knows whom to charge for a fault; [`fault::consume_or_miss`] takes a page from
//! this CPU's [`Stock`] and leaves it pending; on a miss [`fault::miss`] charges a batch with [`charge::charge`] and
//! refills the stock. [`page::allocated`] commits the pending page, or takes what is missing, and records the
//! [`Owner`](owner_of); [`page::freed`] looks up the owner, and [`uncharge::uncharge_pages`] puts the page back.
//! [`drain::drain_stock`] gives stocked pages to the shared counters; [`file::added`] marks pages that are page cache.
//! All counts are in pages (`nr_pages`).
#![no_std]

#[cfg(not(target_arch = "bpf"))]
extern crate std;

pub mod adopt;
pub mod again;
pub mod charge;
pub mod collapse;
pub mod control;
pub mod counter;
pub mod drain;
pub mod event;
pub mod fault;
pub mod file;
pub mod huge;
pub mod layout;
pub mod limit;
pub mod lost;
pub mod machine;
pub mod migrate;
pub mod owner_cache;
pub mod page;
#[cfg(not(target_arch = "bpf"))]
pub mod plain;
pub mod record;
pub mod slots;
pub mod stat;
pub mod stock;
pub mod swap;
pub mod uncharge;
pub mod word;
pub mod world;

pub use charge::{Charge, Over, Resource};
pub use counter::{Counter, PageCounter};
pub use event::Event;
pub use machine::Machine;
pub use owner_cache::OwnerCache;
pub use page::{Chunk, Entry};
pub use slots::{MAX_SLOTS, slot_of};
pub use stat::Loss;
pub use stock::{CgroupCpu, KernelCharges, KernelSlot, Stock, StockWord};
pub use word::Word;
pub use world::{Counters, World};

/// Pages charged at once on a miss: the patch's `CHARGE_SIZE`.
pub const DEFAULT_BATCH: u32 = 32;
/// The largest batch that can be asked for, in pages.
pub const MAX_BATCH: u32 = 1024;
/// Cgroups that can be tracked at once, by default.
pub const DEFAULT_MAX_CGROUPS: u32 = 1024;
/// The largest number of tracked cgroups that can be asked for.
pub const MAX_CGROUPS: u32 = 16384;
/// Levels of tracked cgroups, the leaf included. The BPF verifier wants a bound on the walk up.
pub const MAX_DEPTH: u32 = 16;
/// A limit that is never reached: the kernel's `PAGE_COUNTER_MAX`.
pub const NO_LIMIT: u64 = u64::MAX;
/// "No counter": the parent of a top-most cgroup.
pub const NO_INDEX: u32 = u32::MAX;
/// The owner of pages that belong to no tracked cgroup.
pub const NOBODY: u32 = 0;

/// Version of the map layout, the pins and the arguments of the control programs. An engine of another version can be
/// stopped, but not read or controlled.
pub const LAYOUT: u32 = 12;

/// What an engine was loaded with: the value type of the map `ENGINE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// [`LAYOUT`] of the binary that loaded it.
    pub layout: u32,
    /// Pages charged at once on a miss.
    pub batch: u32,
    /// Stock slots per CPU.
    pub slots: u32,
    /// 1 when memory+swap is charged as well.
    pub memsw: u32,
    /// Where the array of `struct page` begins: the address of page frame 0's.
    pub page_base: u64,
    /// Bytes of a `struct page`.
    pub page_struct_size: u64,
}

/// The low 32 bits of a cgroup v2 id, by which a living cgroup is looked up.
///
/// kernfs ids are `generation << 32 | ino` with `ino` unique among living nodes and never 0
/// (`kernfs_new_node` in `fs/kernfs/dir.c`).
#[inline(always)]
pub const fn key_of(cgroup_id: u64) -> u32 {
    cgroup_id as u32
}

/// The name of the cgroup with counter `index` in packed words and in the page-owner map: the index plus one;
/// [`NOBODY`] for [`NO_INDEX`].
///
/// Not the cgroup's id: a removed cgroup keeps its counter for as long as a page is charged to it, while its id may be
/// reused (`docs/adr/0008-owners-are-counters.md`).
#[inline(always)]
pub const fn owner_of(index: u32) -> u32 {
    index.wrapping_add(1)
}

/// Index of the counter of `owner`; [`NO_INDEX`] for [`NOBODY`].
#[inline(always)]
pub const fn index_of(owner: u32) -> u32 {
    owner.wrapping_sub(1)
}

#[cfg(feature = "user")]
mod pod {
    //! The wire types as the user half reads them from maps.

    // SAFETY: repr(C), integers only, no padding (asserted beside each type), any bits valid.
    unsafe impl aya::Pod for crate::Stock<u64> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::CgroupCpu<u64> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::KernelCharges<u64> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::KernelSlot<u64> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Counter<u64> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::EngineInfo {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::layout::MemoryOwner {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::layout::FolioLayout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::layout::PageLayout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::layout::GfpFlags {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::layout::KernelStocks {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Chunk<u32> {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::file::FilePage<u64> {}
}
