//! `memstock limit`: changes the limits of a tracked cgroup while it runs.

use std::cell::RefCell;

use anyhow::Result;
use memstock_common::{Counter, NO_LIMIT, Resource};

use super::targets::in_order;
use super::{attached, target};
use crate::cgroup::{Cgroup, display};
use crate::cli::SetLimit;
use crate::enforce::room::{Room, excess};
use crate::enforce::undo::Undo;
use crate::engine::Engine;
use crate::exit::{Failure, SUCCESS};
use crate::host::page_size;
use crate::kernel_cgroup::KernelCgroups;
use crate::size::human;

/// Sets one limit or both; where the usage is above one, drains and reclaims first.
///
/// # Errors
/// No engine is running, the cgroup is not tracked, or the usage cannot be brought below the limit. Then the
/// old limit stands.
pub fn limit(args: &SetLimit) -> Result<u8> {
    let (engine, mount) = attached()?;
    let (cgroup, index) = target(&engine, &mount, &args.cgroup)?;
    let kernel =
        KernelCgroups::find(&mount, &args.kernel_cgroups, std::slice::from_ref(&cgroup.path))?;
    let old = engine.counter(index)?;
    let wished = |wish: &Option<Option<u64>>, old: u64| match wish {
        None => old,
        Some(nr_pages) => nr_pages.unwrap_or(NO_LIMIT),
    };
    let memory = wished(&args.memory, old.memory_limit);
    let memsw = wished(&args.memsw, old.memsw_limit);
    if args.memsw.is_some() && engine.info().memsw == 0 {
        return Err(Failure::Usage
            .error("memory and swap together are not charged: start memstock run with --memsw"));
    }
    in_order(&cgroup.path, memory, memsw)?;
    let undo = RefCell::new(Undo::start()?);
    let room = Room { engine: &engine, kernel: &kernel, undo: Some(&undo), cgroup: &cgroup, index };
    let setter = Setter { room, force: args.force };
    // At no time may memory and swap together be limited to less than memory alone.
    let (first, second) = ((Resource::Memory, memory), (Resource::Memsw, memsw));
    let order = if memory > old.memsw_limit { [second, first] } else { [first, second] };
    for (resource, nr_pages) in order {
        setter.set(resource, nr_pages)?;
    }
    Ok(SUCCESS)
}

struct Setter<'a> {
    room: Room<'a>,
    force: bool,
}

impl Setter<'_> {
    fn set(&self, resource: Resource, nr_pages: u64) -> Result<()> {
        let Room { engine, cgroup, index, .. } = self.room;
        if engine.control().limit(index, resource, nr_pages)? {
            return Ok(());
        }
        let allowed = |of| if of == resource { nr_pages } else { NO_LIMIT };
        let above = |counter: &Counter<u64>| {
            excess(counter, allowed(Resource::Memory), allowed(Resource::Memsw))
        };
        let mut say = |record| log::info!("{record}");
        self.room.make(&mut say, above)?;
        // Its tasks go on: the usage may have risen again.
        if engine.control().limit(index, resource, nr_pages)? {
            return Ok(());
        }
        if self.force {
            return engine.control().force_limit(index, resource, nr_pages);
        }
        Err(busy(engine, cgroup, index, resource, nr_pages)?)
    }
}

fn busy(
    engine: &Engine,
    cgroup: &Cgroup,
    index: u32,
    resource: Resource,
    nr_pages: u64,
) -> Result<anyhow::Error> {
    let counter = engine.counter(index)?;
    let (usage, old) = match resource {
        Resource::Memory => (counter.memory.usage, counter.memory_limit),
        Resource::Memsw => (counter.memsw.usage, counter.memsw_limit),
    };
    let bytes = |nr_pages: u64| match nr_pages {
        NO_LIMIT => "max".to_owned(),
        nr_pages => human(nr_pages * page_size()),
    };
    Ok(Failure::Other.error(format!(
        "{} is busy: it uses {}, and draining and reclaiming did not bring that below {}; its limit \
         stays {}: free memory of it, or give --force",
        display(&cgroup.path),
        bytes(usage),
        bytes(nr_pages),
        bytes(old)
    )))
}
