//! Pages that the kernel moves to other frames, for compaction mostly: of these memstock knows only where functions of
//! the kernel can be traced. Elsewhere they are nobody's from then on (`docs/limitations.md`), and each is one at most of
//! those that only the kernel charges.

use std::fs;

use anyhow::{Context, Result};

use crate::Engine;
use crate::leftovers::PINS;

/// Those since a moment.
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    before: u64,
    is_seen: bool,
}

impl Migrations {
    /// Those from now on, which the engine sees or does not.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn from_now(engine: &Engine) -> Result<Self> {
        Ok(Self { before: all()?, is_seen: engine.sees_migrations()? })
    }

    /// How many pages were moved unseen, on the whole host.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn unseen(&self) -> Result<u64> {
        if self.is_seen { Ok(0) } else { Ok(all()? - self.before) }
    }
}

impl Engine {
    /// Whether it sees pages being moved: it has a program for it then.
    ///
    /// # Errors
    /// When its pins cannot be read.
    pub fn sees_migrations(&self) -> Result<bool> {
        let mut entries = fs::read_dir(PINS).context(PINS)?;
        let is_seen = |root: fs::DirEntry| root.path().join("programs/migrated").exists();
        entries.try_fold(false, |seen, root| Ok(seen || is_seen(root?)))
    }
}

/// `pgmigrate_success` in `/proc/vmstat`: pages since boot.
fn all() -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat").context("/proc/vmstat")?;
    let count = text.lines().find_map(|line| line.strip_prefix("pgmigrate_success "));
    count.map_or(Ok(0), |count| count.parse().context("pgmigrate_success"))
}
