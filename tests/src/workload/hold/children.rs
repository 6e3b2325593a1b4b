//! Child processes: one that copies on write, and storms of them.

use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::{read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};

use super::Held;
use super::region::Region;

/// Children of a storm.
const STORM: usize = 200;
/// Children that live at the same time.
const AT_ONCE: usize = 16;

/// Holds the child's copy too. The child and this process also copy a few pages of the program's own memory, which are
/// not counted and go with the child.
pub(super) fn fork_write(nr_pages: usize) -> Result<Held> {
    let region = Region::private(nr_pages)?;
    region.write();
    let (hear, tell) = pipe_with(PipeFlags::CLOEXEC).context("a pipe from the child")?;
    // The child ends when its parent closes this end or is killed.
    let (last, hold) = pipe_with(PipeFlags::CLOEXEC).context("a pipe to the child")?;
    let (parents, childs) = ((&hear, &hold), (&tell, &last));
    let child = fork(|| {
        // SAFETY: these are the child's own copies of the descriptors, and it does not use them otherwise.
        unsafe {
            libc::close(parents.0.as_raw_fd());
            libc::close(parents.1.as_raw_fd());
        }
        region.write();
        let (tell, last) = childs;
        write(tell, b"1").is_ok() && read(last, &mut [0; 1]).is_ok()
    })?;
    drop((tell, last));
    let told = read(&hear, &mut [0; 1]).context("hearing from the child")?;
    let give = move || {
        drop(hold);
        reap(child)?;
        region.unmap()
    };
    if told == 0 {
        give()?;
        bail!("the child has ended by itself");
    }
    Ok(Held::new(2 * nr_pages, give))
}

/// All children have ended when this returns.
pub(super) fn fork_storm(nr_pages: usize) -> Result<Held> {
    for started in 0..STORM {
        if started >= AT_ONCE {
            reap_any()?;
        }
        fork(|| {
            let region = Region::private(nr_pages);
            region.is_ok_and(|region| {
                region.write();
                true
            })
        })?;
    }
    for _ in 0..AT_ONCE.min(STORM) {
        reap_any()?;
    }
    Ok(Held::new(0, || Ok(())))
}

/// All children have ended when this returns.
pub(super) fn exec_storm() -> Result<Held> {
    exec(STORM)?;
    Ok(Held::new(0, || Ok(())))
}

/// Runs `true` `count` times.
pub(super) fn exec(count: usize) -> Result<()> {
    for _ in 0..count {
        let status = Command::new("true").status().context("starting `true`")?;
        ensure!(status.success(), "`true`: {status}");
    }
    Ok(())
}

/// Forks a child that does `work` and exits, with success if it returns true.
fn fork(work: impl FnOnce() -> bool) -> Result<Pid> {
    // SAFETY: this process has one thread, so no thread that is missing in the child holds a lock. The child
    // never returns from here.
    match unsafe { libc::fork() } {
        0 => {
            let code = i32::from(!work());
            // SAFETY: ends the process without the parent's clean-up, which is not the child's to do.
            unsafe { libc::_exit(code) }
        }
        child => match Pid::from_raw(child).filter(|_| child > 0) {
            Some(child) => Ok(child),
            None => Err(io::Error::last_os_error()).context("fork"),
        },
    }
}

fn reap(child: Pid) -> Result<()> {
    let ended = waitpid(Some(child), WaitOptions::empty()).context("waiting for a child")?;
    well(ended)
}

fn reap_any() -> Result<()> {
    well(wait(WaitOptions::empty()).context("waiting for a child")?)
}

fn well(ended: Option<(Pid, WaitStatus)>) -> Result<()> {
    let status = ended.context("no child has ended")?.1;
    ensure!(status.exit_status() == Some(0), "a child ended badly: {status:?}");
    Ok(())
}
