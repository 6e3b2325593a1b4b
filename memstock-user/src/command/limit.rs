//! `memstock limit`: changes the limits of a tracked cgroup while it runs.

use anyhow::Result;
use memstock_common::NO_LIMIT;

use super::{attached, target};
use crate::cli::SetLimit;
use crate::enforce::room::Room;
use crate::enforce::setting::{self, Wish};
use crate::exit::{Failure, SUCCESS};

/// Sets one limit or both; where the usage is above one, drains and reclaims first.
///
/// # Errors
/// No engine is running, the cgroup is not tracked, or the usage cannot be brought below the limit. Then the
/// old limit stands.
pub fn limit(args: &SetLimit) -> Result<u8> {
    let (engine, mount) = attached()?;
    let (cgroup, index) = target(&engine, &mount, &args.cgroup)?;
    if args.memsw.is_some() && engine.info().memsw == 0 {
        return Err(Failure::Usage.error(setting::NO_MEMSW));
    }
    let wish = |limit: Option<Option<u64>>| limit.map(|nr_pages| nr_pages.unwrap_or(NO_LIMIT));
    let wish = Wish { memory: wish(args.memory), memsw: wish(args.memsw) };
    let room = Room { engine: &engine, cgroup: &cgroup, index };
    setting::set(&room, wish, args.force, &mut |record| log::info!("{record}"))?;
    Ok(SUCCESS)
}
