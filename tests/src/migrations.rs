//! Pages that the kernel moves to other frames, mostly for compaction. memstock sees that only where kernel functions
//! can be traced. Elsewhere a moved page has no owner from then on (`docs/limitations.md`), and only the kernel charges
//! it.

use std::fs;

use anyhow::{Context, Result};

use crate::Engine;
use crate::leftovers::PINS;

/// The migrations since some moment.
#[derive(Clone, Copy, Debug)]
pub struct Migrations {
    before: u64,
    is_seen: bool,
}

impl Migrations {
    /// Starts to count, for an engine that may see them or not.
    ///
    /// # Errors
    /// When the kernel's count cannot be read.
    pub fn from_now(engine: &Engine) -> Result<Self> {
        Ok(Self { before: all()?, is_seen: engine.sees_migrations()? })
    }

    /// How many pages were moved without the engine seeing it, on the whole host.
    ///
    /// # Errors
    /// When the kernel's count cannot be read.
    pub fn unseen(&self) -> Result<u64> {
        if self.is_seen { Ok(0) } else { Ok(all()? - self.before) }
    }
}

impl Engine {
    /// Whether it sees migrations, that is, has the program for them.
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
