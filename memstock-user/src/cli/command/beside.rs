//! Runs COMMAND below a cgroup that a running engine tracks; the engine's daemon then tracks COMMAND's cgroup as well.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::signals::Signals;
use super::watch::GRACE;
use crate::engine::Engine;
use crate::exit::Failure;
use crate::host::cgroup::{Cgroup, CgroupMount, display};
use crate::host::launch::{Ended, Running};
use crate::host::lock;

/// How long the daemon may take to track a new cgroup.
const TRACKED: Duration = Duration::from_secs(5);
/// Between two checks whether it does.
const PAUSE: Duration = Duration::from_millis(2);

/// Makes sure that a daemon tracks `above`, and so will track COMMAND's cgroup below it; returns `above`.
/// `has_settings`: the command line has settings of an engine.
///
/// # Errors
/// [`Failure::Running`]: it does not.
pub(super) fn require_tracked(
    above: Option<&Path>,
    has_settings: bool,
    engine: &Engine,
    mount: &CgroupMount,
) -> Result<Cgroup> {
    let running = |what: String| Err(Failure::Running.error(what));
    let Some(pid) = lock::holder()? else {
        return running(
            "an engine whose daemon died is charging, and nobody tracks new cgroups: adopt it with \
             \"memstock run\", or end it with \"memstock stop\""
                .into(),
        );
    };
    if has_settings {
        return running(format!(
            "an engine is already running (pid {pid}): leave out --batch and --slots, which are its own, \
             or end it with \"memstock stop\""
        ));
    }
    let Some(path) = above else {
        return running(format!(
            "an engine is already running (pid {pid}): name a cgroup that it tracks with --cgroup \
             (\"memstock show\" lists them), or end it with \"memstock stop\""
        ));
    };
    let above = mount.resolve(path)?;
    if engine.index_of(above.id)?.is_none() {
        return running(format!(
            "an engine is already running (pid {pid}) and does not track {}: name a cgroup that it \
             tracks (\"memstock show\" lists them), or end it with \"memstock stop\"",
            display(&above.path)
        ));
    }
    Ok(above)
}

/// Waits until the daemon tracks a new cgroup.
///
/// # Errors
/// It does not in time.
pub(super) async fn wait_until_tracked(engine: &Engine, cgroup: &Cgroup) -> Result<()> {
    let deadline = Instant::now() + TRACKED;
    while engine.index_of(cgroup.id)?.is_none() {
        if Instant::now() > deadline {
            return Err(Failure::Other.error(format!(
                "the running engine does not track {}: see what its daemon reports",
                display(&cgroup.path)
            )));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Waits for COMMAND. Passes SIGINT and SIGQUIT on to it, and ends it at SIGTERM.
///
/// # Errors
/// COMMAND cannot be signalled or waited for.
pub(super) async fn attend(child: &mut Running, signals: &mut Signals) -> Result<Ended> {
    loop {
        tokio::select! {
            ended = child.wait() => return ended.context("cannot wait for COMMAND"),
            signal = signals.any() => match signal {
                Signal::INT | Signal::QUIT => child.signal(signal)?,
                _ => return child.terminate(GRACE).await,
            },
        }
    }
}
