//! Configuration files of tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::cgroup::TestCgroup;
use crate::engine::Engine;
use crate::show::Cgroup;

/// A configuration file in a temporary folder of its own.
#[derive(Debug)]
pub struct ConfigFile {
    dir: TempDir,
    path: PathBuf,
}

impl ConfigFile {
    /// Makes one with this text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = Self { path: dir.path().join("memstock.toml"), dir };
        file.write(text)?;
        Ok(file)
    }

    /// Replaces its text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, text: impl AsRef<[u8]>) -> Result<()> {
        fs::write(&self.path, text).context("the configuration")
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// The folder that it is in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts an engine with it.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start(&self) -> Result<Engine> {
        Engine::start(["--config", self.path()])
    }
}

/// A `[[cgroup]]` entry for `cgroup` with further lines.
pub fn entry(cgroup: &TestCgroup, more: &str) -> String {
    format!("[[cgroup]]\npath = \"{}\"\n{more}\n", cgroup.path())
}

/// The limits of a cgroup in bytes: memory, and memory+swap.
///
/// # Errors
/// When `memstock show` fails, or has no such cgroup.
pub fn limits(engine: &Engine, cgroup: &TestCgroup) -> Result<[Option<u64>; 2]> {
    let show = engine.show()?;
    let Cgroup { memory, memsw, .. } = show.cgroup(cgroup.path())?;
    Ok([memory.limit, memsw.limit])
}
