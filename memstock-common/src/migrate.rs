//! Page migration: compaction, NUMA balancing, `move_pages(2)` and memory that goes offline give a page another
//! frame. The charge goes along: `mem_cgroup_migrate` in `mm/memcontrol.c`.

use crate::page::{CHUNK_PAGES, Chunk, Entry, UNCONFIRMED, freed, owner_in, uncharge_entry};
use crate::world::Step;
use crate::{Machine, NOBODY};

/// The contents of the folio of `nr_pages` pages at the frame `from` are in that at `to` now, and the former is about to
/// be freed. Its owners go along; whoever was charged for the latter, because it was allocated, is not any more.
#[inline(always)]
pub fn migrated<M: Machine>(machine: &M, from: u64, to: u64, nr_pages: u32) {
    if !nr_pages.is_power_of_two() || nr_pages > CHUNK_PAGES {
        return;
    }
    freed(machine, to, nr_pages.trailing_zeros());
    let (Some(old), Some(new)) = (machine.chunk(from), machine.chunk(to)) else { return };
    let at = machine.opaque_zero();
    machine.repeat(CHUNK_PAGES, &mut Walk { machine, old, new, from, to, at, nr_pages });
}

/// The walk over the pages of a folio, which is in one chunk.
struct Walk<'a, M: Machine> {
    machine: &'a M,
    old: &'a Chunk<M::Entry>,
    new: &'a Chunk<M::Entry>,
    from: u64,
    to: u64,
    at: u32,
    nr_pages: u32,
}

impl<M: Machine> Step for Walk<'_, M> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.at >= self.nr_pages {
            return false;
        }
        let at = u64::from(self.at);
        self.at += 1;
        let old = self.old.entry(self.from + at);
        if old.load() == NOBODY {
            return true;
        }
        let entry = old.swap(NOBODY) & !UNCONFIRMED;
        if owner_in(entry) != NOBODY {
            // It may have been adopted since it was taken from its owner, or be left of a block with too many.
            uncharge_entry(self.machine, self.new.entry(self.to + at).swap(entry));
        }
        true
    }
}
