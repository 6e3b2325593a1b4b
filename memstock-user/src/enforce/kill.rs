//! Kills one chosen task, by pidfd, or a whole cgroup, and waits for the memory. Does not choose.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::task::{Task, tasks};
use super::victim::is_never_killed;
use crate::host::cgroup::{Cgroup, display};

/// Opens `task` if it is still the same process, inside `cgroup`; `None` otherwise.
///
/// Opens first and then checks: the pid can be reused in between, the pidfd cannot.
///
/// # Errors
/// The kernel refuses.
pub fn open(task: &Task, cgroup: &Cgroup) -> Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(task.pid) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open process {pid:?}")),
    };
    Ok(task.is_still_in(&cgroup.path).then_some(pidfd))
}

/// Kills `task` if it is still the same process, inside `cgroup`, and returns its pidfd; `None` otherwise.
///
/// # Errors
/// The kernel refuses.
pub fn kill(task: &Task, cgroup: &Cgroup) -> Result<Option<OwnedFd>> {
    let Some(pidfd) = open(task, cgroup)? else { return Ok(None) };
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => Ok(Some(pidfd)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot kill process {}", task.pid)),
    }
}

/// Kills every task in `cgroup` and below it, as for `memory.oom.group`. If some of them are never killed or `is_ours`,
/// kills the others one by one, as the kernel does.
///
/// # Errors
/// The kernel refuses.
pub fn kill_group(cgroup: &Cgroup, is_ours: impl Fn(&Task) -> bool) -> Result<()> {
    let is_spared = |task: &Task| is_never_killed(task) || is_ours(task);
    let (spared, others): (Vec<_>, Vec<_>) = tasks(&cgroup.dir).into_iter().partition(is_spared);
    if !spared.is_empty() {
        for task in &others {
            kill(task, cgroup)?;
        }
        return Ok(());
    }
    fs::write(cgroup.dir.join("cgroup.kill"), "1")
        .with_context(|| format!("cannot kill the tasks of cgroup {}", display(&cgroup.path)))
}

/// Interval between two attempts to reap the memory of a process that is slow to exit.
const TURN: Duration = Duration::from_millis(5);

/// Waits until the memory of a killed process is free, or until `deadline`; returns whether it is free.
///
/// A process frees its memory when it exits. If it cannot, because one of its threads waits for a disk or a server, its
/// memory is reaped (`process_mrelease`, Linux 5.15), as by the kernel's OOM reaper.
pub fn gave_back_memory(pidfd: &OwnedFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(wait) = Timespec::try_from(left.min(TURN)) else { return false };
        // A pidfd becomes readable when its process exits.
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&wait)) {
            Ok(1..) => return true,
            Ok(0) | Err(Errno::INTR) => {}
            Err(_) => return false,
        }
        if release(pidfd) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}

fn release(pidfd: &OwnedFd) -> bool {
    // SAFETY: the call takes an open descriptor and none of our memory.
    unsafe { libc::syscall(libc::SYS_process_mrelease, pidfd.as_raw_fd(), 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_another_or_elsewhere_is_not_opened() {
        let cgroup = |path: &str| Cgroup { path: path.into(), dir: "/".into(), id: 1 };
        let is_opened = |task: &Task, path| open(task, &cgroup(path)).unwrap().is_some();
        let task = Task::look(std::process::id().cast_signed()).unwrap();
        assert!(is_opened(&task, "/"));
        assert!(!is_opened(&task, "/memstock-no-such"), "it has left the cgroup");
        let other = Task { started: task.started + 1, ..task };
        assert!(!is_opened(&other, "/"), "its pid is another's by now");
    }
}
