//! `memstock force-empty`: drains a cgroup's stocks and reclaims as much of its memory as possible.

use std::io::{self, Write as _};

use anyhow::Result;

use super::{attached, closed_pipe_is_success, one_target};
use crate::cli::ForceEmpty;
use crate::enforce::reclaim::{Cache, METHODS};
use crate::enforce::room::{LATER, Room, excess};
use crate::host::page_size;
use crate::journal::Record;
use crate::model::size::human;

/// Empties it as far as possible, and prints what was drained, reclaimed and left.
///
/// # Errors
/// No engine is running, or the cgroup is not tracked.
pub fn force_empty(args: &ForceEmpty) -> Result<u8> {
    let (engine, mount) = attached()?;
    let (cgroup, index) = one_target(&engine, &mount, args.cgroup.as_deref(), &args.named)?;
    let (engine, cache, cgroup, within) = (&engine, &Cache::default(), &cgroup, LATER);
    let room = Room { engine, cache, cgroup, index, within };
    let (mut drained, mut reclaimed) = (0, 0);
    let mut say = |record| match record {
        Record::Drain { nr_pages, .. } => drained += nr_pages,
        Record::Reclaim { gained_pages, .. } => reclaimed += gained_pages,
        _ => {}
    };
    room.make(&mut say, &METHODS, |counter| excess(counter, 0, 0))?;
    let bytes = |nr_pages| human(nr_pages * page_size());
    let left = engine.counter(index)?.memory.usage;
    let mut out = io::stdout().lock();
    closed_pipe_is_success(writeln!(
        out,
        "drained {}, reclaimed {}, {} left",
        bytes(drained),
        bytes(reclaimed),
        bytes(left)
    ))
}
