//! `memstock limit`: changes the limits of a tracked cgroup while it runs.

use anyhow::Result;
use memstock_common::NO_LIMIT;

use super::{attached, one_target};
use crate::cli::SetLimit;
use crate::enforce::notes::Notes;
use crate::enforce::reclaim::Cache;
use crate::enforce::room::{LATER, Room};
use crate::enforce::setting::{self, Limits, Request};
use crate::exit::{Failure, SUCCESS};

/// Sets one limit or both; where the usage is above one, drains and reclaims first.
///
/// # Errors
/// No engine is running, the cgroup is not tracked, or the usage cannot be brought below the limit. The old limit then
/// stays.
pub fn limit(args: &SetLimit) -> Result<u8> {
    let (engine, mount) = attached()?;
    let (cgroup, index) = one_target(&engine, &mount, args.cgroup.as_deref(), &args.named)?;
    if args.memsw.is_some() && engine.info().memsw == 0 {
        return Err(Failure::Usage.error(setting::NO_MEMSW));
    }
    let request = |limit: Option<Option<u64>>| limit.map(|nr_pages| nr_pages.unwrap_or(NO_LIMIT));
    let request = Request { memory: request(args.memory), memsw: request(args.memsw) };
    if [request.memory, request.memsw].into_iter().flatten().any(|limit| limit != NO_LIMIT) {
        cgroup.can_be_limited()?;
    }
    let (engine, cache, cgroup, within) = (&engine, &Cache::default(), &cgroup, LATER);
    let room = Room { engine, cache, cgroup, index, within };
    setting::set(&room, request, args.force, &mut |record| log::info!("{record}"))?;
    Notes::of(engine.pins()).note(&cgroup.path, Limits::of(&engine.counter(index)?))?;
    Ok(SUCCESS)
}
