//! Checks conservation, so that drift is found even if nobody runs `memstock audit`.
//!
//! A check reads the whole owner map, 4 bytes per page of the host, up to ten times. If figures changed meanwhile it
//! proves nothing, and the result of the last exact check stands.

use std::time::Instant;

use anyhow::Result;

use crate::audit::Ledgers;
use crate::engine::Engine;
use crate::host::cgroup::{CgroupMount, display};

/// What the checks found so far.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Checks during which nothing moved.
    pub exact: u64,
    /// Checks that prove nothing.
    pub moving: u64,
    /// What the last exact check found.
    pub last: Option<Proof>,
}

impl Checked {
    /// Adds the result of one more check: `None` if it was not exact.
    pub fn note(&mut self, proof: Option<Proof>) {
        match proof {
            Some(proof) => (self.exact, self.last) = (self.exact + 1, Some(proof)),
            None => self.moving += 1,
        }
    }
}

/// What an exact check found, in pages.
#[derive(Clone, Debug)]
pub struct Proof {
    /// When it was made.
    pub at: Instant,
    /// The largest drift of a cgroup: usage less owned and unused pages.
    pub drift: i64,
    /// That cgroup; empty without drift.
    pub cgroup: String,
    /// Pages whose owner is no counter in use.
    pub ownerless: u64,
}

/// Runs a check; `None` if too much moved meanwhile.
///
/// # Errors
/// A map cannot be read.
pub fn check(engine: &Engine) -> Result<Option<Proof>> {
    let ledgers = Ledgers::read(engine)?;
    if !ledgers.is_exact {
        return Ok(None);
    }
    let (at, ownerless) = (Instant::now(), ledgers.ownerless);
    let Some((index, drift)) = ledgers.worst(engine.info().memsw == 1) else {
        return Ok(Some(Proof { at, drift: 0, cgroup: String::new(), ownerless }));
    };
    let id = engine.counter(index)?.id;
    let path = CgroupMount::find()?.path_of(id);
    let cgroup = path.map_or_else(|| format!("id {id}"), |path| display(&path));
    Ok(Some(Proof { at, drift, cgroup, ownerless }))
}
