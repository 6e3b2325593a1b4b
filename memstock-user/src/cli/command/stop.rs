//! `memstock stop`: ends the running engine and leaves nothing behind.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::start::remove_noted;
use crate::enforce::hold::thaw_left;
use crate::engine::pins::Pins;
use crate::exit::Failure;
use crate::host;
use crate::host::cgroup::CgroupMount;
use crate::host::lock;
use crate::host::lock::EngineLock;
use crate::journal;

/// How long a daemon may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends the daemon, and removes what it or a dead one has left: pins of any version, and cgroups.
///
/// # Errors
/// There is neither, or the daemon does not end.
pub fn stop() -> Result<u8> {
    host::require_privilege()?;
    let pins = Pins::on(host::BPFFS.as_ref());
    let daemon = lock::holder()?;
    let is_pinned =
        pins.exist() || pins.unfinished().exist() || !pins.of_other_versions()?.is_empty();
    if daemon.is_none() && !is_pinned && !lock::is_left() && !journal::exists() {
        return Err(Failure::NotRunning.error("no engine is running"));
    }
    if let Some(pid) = daemon {
        end(pid)?;
    }
    // Held so that no new engine starts among the remains of the old one.
    let mut lock = EngineLock::acquire()?;
    if let Ok(mount) = CgroupMount::find() {
        thaw_left(&mount);
    }
    pins.remove()?;
    for other in pins.of_other_versions()? {
        other.remove()?;
    }
    journal::remove()?;
    if lock.has_notes() {
        remove_noted(&CgroupMount::find()?, &mut lock)?;
    }
    host::unmount_our_bpffs()?;
    Ok(0)
}

fn end(raw: u32) -> Result<()> {
    let Some(pid) = Pid::from_raw(raw.cast_signed()) else { return Ok(()) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        pidfd => pidfd.with_context(|| format!("cannot open process {raw}"))?,
    };
    // The pidfd is of whoever has the pid now; only the holder of the lock is the daemon.
    if lock::holder()? != Some(raw) {
        return Ok(());
    }
    match pidfd_send_signal(&pidfd, Signal::TERM) {
        Err(Errno::SRCH) => return Ok(()),
        sent => sent.with_context(|| format!("cannot signal process {raw}"))?,
    }
    let deadline = Instant::now() + PATIENCE;
    while lock::holder()? == Some(raw) {
        if Instant::now() > deadline {
            bail!("the engine (pid {raw}) does not end: see what it is waiting for");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
