//! For tests of `memstock top`: a terminal with it, and cgroups for it to show.

use std::ffi::OsStr;

use anyhow::Result;

use crate::live::{live, name};
use crate::skip::skip;
use crate::tmux::{self, Terminal};
use crate::{Engine, TestCgroup, binaries};

/// The size that most terminals start with.
pub const SIZE: (u16, u16) = (80, 24);

/// Runs a live test that needs tmux.
///
/// # Errors
/// Those of the test.
pub fn in_tmux(test: impl FnOnce() -> Result<()>) -> Result<()> {
    live(|| {
        if !tmux::exists() {
            skip(&name(), "tmux is not installed");
            return Ok(());
        }
        test()
    })
}

/// Starts `memstock top` with these arguments in a terminal.
///
/// # Errors
/// When it cannot be started.
pub fn top(size: (u16, u16), environment: &[(&str, &str)], args: &[&str]) -> Result<Terminal> {
    let program = binaries::memstock()?;
    let words = [program.as_os_str(), OsStr::new("top")];
    Terminal::start(size, environment, words.into_iter().chain(args.iter().map(OsStr::new)))
}

/// Two tracked trees: `web` with `api` and `static`, and `batch`.
pub struct Tree {
    /// The engine that tracks them.
    pub engine: Engine,
    /// `web/api`.
    pub api: TestCgroup,
    _others: [TestCgroup; 3],
    /// Their parent.
    pub root: TestCgroup,
}

impl Tree {
    /// Makes them and starts the engine.
    ///
    /// # Errors
    /// When a cgroup cannot be made, or the engine does not start.
    pub fn new() -> Result<Self> {
        let root = TestCgroup::new()?;
        let web = root.child("web")?;
        let (api, quiet) = (web.child("api")?, web.child("static")?);
        let batch = root.child("batch")?;
        let engine = Engine::start(["--cgroup", web.path(), "--cgroup", batch.path()])?;
        Ok(Self { engine, api, _others: [quiet, web, batch], root })
    }

    /// The path of `web`.
    pub fn web(&self) -> String {
        format!("{}/web", self.root.path())
    }
}

/// The line of a cgroup whose path ends with `name`.
pub fn row(screen: &str, name: &str) -> Option<usize> {
    screen.lines().position(|line| {
        let first = line.trim_start_matches(['▾', '▸', ' ']).split_whitespace().next();
        first.is_some_and(|first| first.ends_with(name)) && line.contains("B ")
    })
}
