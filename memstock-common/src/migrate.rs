//! Page migration: compaction, NUMA balancing, `move_pages(2)` and memory offlining move a page to another frame. The
//! charge moves along: `mem_cgroup_migrate` in `mm/memcontrol.c`.

use crate::page::{CHUNK_PAGES, Chunk, Entry, UNCONFIRMED, freed, owner_in, uncharge_entry};
use crate::world::Step;
use crate::{Machine, NOBODY};

/// The contents of the folio of `nr_pages` pages at frame `from` have been moved to the one at `to`, and the old one is
/// about to be freed. Moves its owners along, and uncharges whoever was charged for allocating the new one.
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
            // The new page may have been adopted after `freed`, or be left over from a block with too many owners.
            uncharge_entry(self.machine, self.new.entry(self.to + at).swap(entry));
        }
        true
    }
}
