//! Sets limits of a tracked cgroup while its tasks run, as the kernel does: below the usage only after draining
//! and reclaiming, or, where more than page cache is above it, not at all. Kills nobody.

use std::path::Path;

use anyhow::Result;
use memstock_common::counter::needed;
use memstock_common::{Counter, NO_LIMIT, Resource};

use super::reclaim::MEANS;
use super::room::{Room, cache_over_limit, excess, needed_excess};
use crate::cgroup::display;
use crate::exit::Failure;
use crate::host::page_size;
use crate::journal::Record;
use crate::size::human;

/// Why an engine takes no limit of memory and swap together.
pub const NO_MEMSW: &str =
    "memory and swap together are not charged: start memstock run with --memsw";

/// Limits of a cgroup, in pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Of memory.
    pub memory: u64,
    /// Of memory and swap together.
    pub memsw: u64,
}

impl Limits {
    /// Those of a counter.
    pub fn of(counter: &Counter<u64>) -> Self {
        Self { memory: counter.memory_limit, memsw: counter.memsw_limit }
    }

    /// One of them.
    pub fn get(self, resource: Resource) -> u64 {
        match resource {
            Resource::Memory => self.memory,
            Resource::Memsw => self.memsw,
        }
    }

    /// Refuses a limit of memory and swap together that is below that of memory alone, as the kernel does.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn in_order(self, path: &Path) -> Result<()> {
        let Self { memory, memsw } = self;
        // A limit of memory above the other one would never be met; none at all is no limit to be above.
        if memory != NO_LIMIT && memsw < memory {
            return Err(Failure::Usage.error(format!(
                "{}: memory and swap together may not be limited to less ({}) than memory alone ({})",
                display(path),
                text(memsw),
                text(memory)
            )));
        }
        Ok(())
    }
}

/// A limit in pages, for people.
pub fn text(nr_pages: u64) -> String {
    match nr_pages {
        NO_LIMIT => "max".to_owned(),
        nr_pages => human(nr_pages * page_size()),
    }
}

/// Sets both limits of the cgroup of a room. `force` sets them below the usage, too. What is done for it goes
/// to `say`.
///
/// # Errors
/// The limits do not go together, memory+swap is not charged, or the usage cannot be brought below one of them.
/// Then the old one stands.
pub fn set(
    room: &Room<'_>,
    wished: Limits,
    force: bool,
    say: &mut impl FnMut(Record),
) -> Result<()> {
    let old = Limits::of(&room.engine.counter(room.index)?);
    if wished.memsw != old.memsw && room.engine.info().memsw == 0 {
        return Err(Failure::Usage.error(NO_MEMSW));
    }
    wished.in_order(&room.cgroup.path)?;
    // At no time may memory and swap together be limited to less than memory alone.
    let order = if wished.memory > old.memsw {
        [Resource::Memsw, Resource::Memory]
    } else {
        [Resource::Memory, Resource::Memsw]
    };
    order
        .into_iter()
        .try_for_each(|resource| set_one(room, resource, wished.get(resource), force, say))
}

fn set_one(
    room: &Room<'_>,
    resource: Resource,
    nr_pages: u64,
    force: bool,
    say: &mut impl FnMut(Record),
) -> Result<()> {
    let Room { engine, index, .. } = *room;
    if engine.control().limit(index, resource, nr_pages)? {
        return Ok(());
    }
    let allowed = |of| if of == resource { nr_pages } else { NO_LIMIT };
    let above = |counter: &Counter<u64>| {
        excess(counter, allowed(Resource::Memory), allowed(Resource::Memsw))
    };
    room.make(say, &MEANS, above)?;
    // Its tasks go on: the usage may have risen again.
    if engine.control().limit(index, resource, nr_pages)? {
        return Ok(());
    }
    let counter = engine.counter(index)?;
    let is_cache =
        needed_excess(&counter, allowed(Resource::Memory), allowed(Resource::Memsw)).is_none();
    if is_cache && let Some((over, _)) = above(&counter) {
        say(cache_over_limit(room.cgroup, &counter, over));
    }
    if force || is_cache {
        return engine.control().force_limit(index, resource, nr_pages);
    }
    Err(busy(room, resource, nr_pages)?)
}

fn busy(room: &Room<'_>, resource: Resource, nr_pages: u64) -> Result<anyhow::Error> {
    let counter = room.engine.counter(room.index)?;
    let usage = match resource {
        Resource::Memory => counter.memory.usage,
        Resource::Memsw => counter.memsw.usage,
    };
    let needed = needed(usage, counter.file);
    Ok(Failure::Other.error(format!(
        "{} is busy: it needs {}, and draining and reclaiming did not bring that below {}; its limit \
         stays {}: free memory of it, or use \"memstock limit\" with --force",
        display(&room.cgroup.path),
        text(needed),
        text(nr_pages),
        text(Limits::of(&counter).get(resource))
    )))
}
