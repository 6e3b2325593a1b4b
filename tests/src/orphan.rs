//! Engines whose daemon is dead, and what `memstock` says to them.

use anyhow::{Result, ensure};

use crate::poll::SOON;
use crate::process::memstock;
use crate::{Engine, TestCgroup, leftovers};

/// Has a `memstock run` refused, with this exit code and one line on standard error that contains `word`.
///
/// # Errors
/// When it is not.
pub fn refused(args: &[&str], code: i32, word: &str) -> Result<()> {
    let finished = memstock(["run"].iter().chain(args))?.finish(SOON)?;
    ensure!(finished.code() == code, "{args:?} is refused by {code}: {finished:?}");
    ensure!(finished.stderr.lines().count() == 1, "one line: {finished:?}");
    ensure!(finished.stderr.contains(word), "{args:?} has to say {word:?}: {finished:?}");
    Ok(())
}

/// Has `memstock stop` remove everything.
///
/// # Errors
/// When it fails, says something, or leaves something.
pub fn stop() -> Result<()> {
    let stop = memstock(["stop"])?.finish(SOON)?;
    ensure!(stop.code() == 0 && stop.stderr.is_empty(), "{stop:?}");
    let left = leftovers::pins_and_lock();
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(())
}

/// An engine, whole and attached, that tracks the cgroup and whose daemon was killed.
///
/// # Errors
/// When it cannot be started.
pub fn orphan(cgroup: &TestCgroup) -> Result<Engine> {
    let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
    engine.kill()?;
    Ok(engine)
}

/// Leaves an engine whose daemon is dead: what is pinned is another's by now, and its `Drop` would stop that.
pub fn forget(engine: Engine) {
    std::mem::forget(engine);
}
