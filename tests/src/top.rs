//! What the tests of `memstock top` share: a terminal with it, and cgroups for it to show.

use std::ffi::OsStr;

use anyhow::Result;

use crate::live::{live, name};
use crate::skip::skip;
use crate::tmux::{self, Terminal};
use crate::{Engine, TestCgroup, binaries};

/// As most terminals begin.
pub const SIZE: (u16, u16) = (80, 24);

/// A live test in a terminal.
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

/// `memstock top` with these arguments in a terminal.
///
/// # Errors
/// It cannot be started.
pub fn top(size: (u16, u16), environment: &[(&str, &str)], args: &[&str]) -> Result<Terminal> {
    let program = binaries::memstock()?;
    let words = [program.as_os_str(), OsStr::new("top")];
    Terminal::start(size, environment, words.into_iter().chain(args.iter().map(OsStr::new)))
}

/// Two trees that are charged: `web` with `api` and `static`, and `batch`.
pub struct Tree {
    /// What charges them.
    pub engine: Engine,
    /// `web/api`.
    pub api: TestCgroup,
    _others: [TestCgroup; 3],
    /// What they are in.
    pub root: TestCgroup,
}

impl Tree {
    /// Makes and charges them.
    ///
    /// # Errors
    /// A cgroup cannot be made, or the engine does not start.
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

/// In which line a cgroup is whose path ends like this.
pub fn row(screen: &str, name: &str) -> Option<usize> {
    screen.lines().position(|line| {
        let first = line.trim_start_matches(['▾', '▸', ' ']).split_whitespace().next();
        first.is_some_and(|first| first.ends_with(name)) && line.contains("B ")
    })
}
