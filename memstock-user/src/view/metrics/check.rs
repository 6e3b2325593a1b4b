//! Proves the law of conservation: finds drift while nobody runs `memstock audit`.
//!
//! A check reads the whole page-owner map, 4 bytes a page of the host, up to ten times. While things move nothing is
//! proved: what the last exact check found stays the answer.

use std::time::Instant;

use anyhow::Result;

use crate::audit::Books;
use crate::engine::Engine;
use crate::host::cgroup::{CgroupMount, display};

/// What the checks found so far.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Those during which nothing moved.
    pub exact: u64,
    /// Those that prove nothing.
    pub moving: u64,
    /// What the last exact one found.
    pub last: Option<Proof>,
}

impl Checked {
    /// Takes note of what one more found, if it was exact.
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
    /// When.
    pub at: Instant,
    /// Of the cgroup in which most does not add up: usage less owned and unused pages.
    pub drift: i64,
    /// That cgroup; empty when all adds up.
    pub cgroup: String,
    /// Pages of no counter in use.
    pub ownerless: u64,
}

/// Checks; nothing if too much moved meanwhile.
///
/// # Errors
/// A map cannot be read.
pub fn check(engine: &Engine) -> Result<Option<Proof>> {
    let books = Books::read(engine)?;
    if !books.is_exact {
        return Ok(None);
    }
    let (at, ownerless) = (Instant::now(), books.ownerless);
    let Some((index, drift)) = books.worst(engine.info().memsw == 1) else {
        return Ok(Some(Proof { at, drift: 0, cgroup: String::new(), ownerless }));
    };
    let id = engine.counter(index)?.id;
    let path = CgroupMount::find()?.path_of(id);
    let cgroup = path.map_or_else(|| format!("id {id}"), |path| display(&path));
    Ok(Some(Proof { at, drift, cgroup, ownerless }))
}
