//! Sets limits of a tracked cgroup while its tasks run, as the kernel does. A limit below the usage is set after
//! draining and reclaiming, or refused if more than page cache exceeds it. Kills nobody.

use std::path::Path;

use anyhow::{Result, bail};
use memstock_common::control::{self, KEEP_LIMIT, Refusal};
use memstock_common::counter::needed;
use memstock_common::{Counter, NO_LIMIT, Resource};

use super::reclaim::METHODS;
use super::room::{Room, cache_over_limit, excess, needed_excess};
use crate::exit::Failure;
use crate::host::cgroup::display;
use crate::host::page_size;
use crate::journal::Record;
use crate::model::size::human;

/// The error for a memory+swap limit when the engine does not charge memory+swap.
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
    /// The limits of a counter.
    pub fn of(counter: &Counter<u64>) -> Self {
        Self { memory: counter.memory_limit, memsw: counter.memsw_limit }
    }

    /// The limit of one resource.
    pub fn get(self, resource: Resource) -> u64 {
        match resource {
            Resource::Memory => self.memory,
            Resource::Memsw => self.memsw,
        }
    }

    /// Refuses a memory+swap limit below the memory limit, as the kernel does.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn in_order(self, path: &Path) -> Result<()> {
        let Self { memory, memsw } = self;
        // A memory limit above the memory+swap limit could never be reached, unless it is "none".
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

/// A limit in pages, formatted for people.
pub fn text(nr_pages: u64) -> String {
    match nr_pages {
        NO_LIMIT => "max".to_owned(),
        nr_pages => human(nr_pages * page_size()),
    }
}

/// Limits to set, in pages; `None` leaves one as it is.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Of memory.
    pub memory: Option<u64>,
    /// Of memory and swap together.
    pub memsw: Option<u64>,
}

impl From<Limits> for Request {
    fn from(Limits { memory, memsw }: Limits) -> Self {
        Self { memory: Some(memory), memsw: Some(memsw) }
    }
}

impl Request {
    /// The request to the kernel half for the counter `index`.
    pub fn asked(self, index: u32, force: bool) -> control::Limits {
        control::Limits {
            index,
            memory: self.memory.unwrap_or(KEEP_LIMIT),
            memsw: self.memsw.unwrap_or(KEEP_LIMIT),
            force: force.into(),
        }
    }

    /// The resulting limits, if they are `old` now.
    fn after(self, old: Limits) -> Limits {
        Limits { memory: self.memory.unwrap_or(old.memory), memsw: self.memsw.unwrap_or(old.memsw) }
    }

    /// The limits that would be lowered from `old`; no limit for the others.
    fn lowered(self, old: Limits) -> Limits {
        let lowered =
            |request: Option<u64>, old| request.filter(|&new| new < old).unwrap_or(NO_LIMIT);
        Limits { memory: lowered(self.memory, old.memory), memsw: lowered(self.memsw, old.memsw) }
    }
}

/// Sets all requested limits of the room's cgroup, or none. With `force`, sets them below the usage, too. Records of
/// what is done for this are passed to `say`.
///
/// # Errors
/// The limits contradict each other, memory+swap is not charged, or the usage cannot be brought below one of them. The
/// old limits then stay in force.
pub fn set(
    room: &Room<'_>,
    request: Request,
    force: bool,
    say: &mut impl FnMut(Record),
) -> Result<()> {
    let Room { engine, index, .. } = *room;
    if engine.info().memsw == 0 && request.memsw.is_some_and(|limit| limit != NO_LIMIT) {
        return Err(Failure::Usage.error(NO_MEMSW));
    }
    if is_set(room, request, false)? {
        return Ok(());
    }
    let above = |counter: &Counter<u64>| {
        let Limits { memory, memsw } = request.lowered(Limits::of(counter));
        // The allowance for huge pages above the present limit does not apply to the new one.
        excess(&Counter { huge: 0, ..*counter }, memory, memsw)
    };
    room.make(say, &METHODS, above)?;
    // The cgroup's tasks keep running, so the usage may have risen again.
    if is_set(room, request, false)? {
        return Ok(());
    }
    let counter = Counter { huge: 0, ..engine.counter(index)? };
    let lowered = request.lowered(Limits::of(&counter));
    let needed = needed_excess(&counter, lowered.memory, lowered.memsw);
    if needed.is_none()
        && let Some((over, _)) = above(&counter)
    {
        say(cache_over_limit(room.cgroup, &counter, over));
    }
    match needed {
        Some((_, resource)) if !force => Err(busy(room, resource, lowered.get(resource))?),
        _ => is_set(room, request, true).map(drop),
    }
}

/// Tries to set the limits; returns false if the usage is too high.
fn is_set(room: &Room<'_>, request: Request, force: bool) -> Result<bool> {
    let Room { engine, index, .. } = *room;
    match engine.control().limits(request.asked(index, force))? {
        Ok(()) => Ok(true),
        Err(Refusal::Order) => {
            // Somebody else may have changed one of them meanwhile.
            request.after(Limits::of(&engine.counter(index)?)).in_order(&room.cgroup.path)?;
            bail!("somebody else is changing the limits of {}", display(&room.cgroup.path))
        }
        Err(_) => Ok(false),
    }
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
         stays {}: free some of its memory, or use \"memstock limit\" with --force",
        display(&room.cgroup.path),
        text(needed),
        text(nr_pages),
        text(Limits::of(&counter).get(resource))
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_swap_may_have_the_same_limit() {
        let is_in_order =
            |memory, memsw| Limits { memory, memsw }.in_order(Path::new("/a")).is_ok();
        assert!(is_in_order(8, 9) && is_in_order(8, 8) && !is_in_order(8, 7));
        assert!(is_in_order(8, NO_LIMIT) && is_in_order(NO_LIMIT, 8), "without the other");
    }
}
