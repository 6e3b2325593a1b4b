//! Engines whose daemon is dead, and how `memstock run` and `memstock stop` deal with them.

use anyhow::{Result, ensure};

use crate::poll::SOON;
use crate::process::memstock;
use crate::{Engine, TestCgroup, leftovers};

/// Checks that `memstock run` refuses, with this exit code and one line on standard error that contains `word`.
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

/// Runs `memstock stop`, which must remove everything.
///
/// # Errors
/// When it fails, writes to standard error, or leaves something behind.
pub fn stop() -> Result<()> {
    let stop = memstock(["stop"])?.finish(SOON)?;
    ensure!(stop.code() == 0 && stop.stderr.is_empty(), "{stop:?}");
    let left = leftovers::pins_and_lock();
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    Ok(())
}

/// An attached engine that tracks the cgroup and whose daemon was killed.
///
/// # Errors
/// When it cannot be started.
pub fn orphan(cgroup: &TestCgroup) -> Result<Engine> {
    let mut engine = Engine::start(["--cgroup", cgroup.path()])?;
    engine.kill()?;
    Ok(engine)
}

/// Drops an [`Engine`] whose daemon is dead without stopping it: by now the pins are another engine's.
pub fn forget(engine: Engine) {
    std::mem::forget(engine);
}
