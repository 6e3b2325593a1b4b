//! Owns COMMAND from its start to its end: waiting for it, signals to it, and what the kernel says it used. It is
//! waited for by its pidfd and reaped by wait4(2), the only call that reports what this one child used.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::host::page_size;
use crate::host::process::Stat;

/// A child that was started. It lives on when this is dropped.
#[derive(Debug)]
pub struct Running {
    pid: Pid,
    /// Readable once the child has ended; never refers to another process.
    pidfd: AsyncFd<OwnedFd>,
    origin: Origin,
    ended: Option<Ended>,
}

/// What is known of a child before its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    started: Instant,
    /// In bytes.
    our_rss: u64,
}

impl Origin {
    /// To be taken right before the start.
    pub(super) fn now() -> io::Result<Self> {
        let own = Stat::read("/proc/self".as_ref()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { started: Instant::now(), our_rss: own.rss * page_size() })
    }
}

/// By how much a child's peak can exceed our resident set before its exec, in bytes: the kernel's per-CPU counts of
/// resident pages are inexact, and the child touches a few pages of its own.
const SLACK: u64 = 1 << 20;

/// How a child ended, and what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// From before its start until it was reaped.
    pub wall: Duration,
    /// Time in user space, including children that it has waited for.
    pub user: Duration,
    /// Time in the kernel, including children that it has waited for.
    pub system: Duration,
    /// The largest resident set of it or of one child that it has waited for, in bytes; none if that was no larger than
    /// ours: between fork and exec it has ours, and the kernel counts that.
    pub max_rss: Option<u64>,
    /// Bytes that it, and the children that it has waited for, read from devices.
    pub read_bytes: u64,
}

impl Running {
    /// Takes over a child that nobody has waited for.
    pub(super) fn take(mut child: Child, origin: Origin) -> Result<Self> {
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from).and_then(|fd| {
            // SAFETY: an OwnedFd gives the same open descriptor for as long as it lives.
            let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
            watched.map_err(io::Error::from)
        });
        let pidfd = pidfd.with_context(|| format!("cannot watch process {}", pid.as_raw_pid()));
        if pidfd.is_err() {
            // Nobody could wait for it.
            let _ = child.kill().and_then(|()| child.wait());
        }
        Ok(Self { pid, pidfd: pidfd?, origin, ended: None })
    }

    /// Its process id, which may be reused once it was waited for.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// Waits for its end; after that, returns the same again. Safe to cancel.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn wait(&mut self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.ended {
                return Ok(ended);
            }
            let mut ready = self.pidfd.readable().await?;
            self.ended = reap(self.pid, self.origin)?;
            ready.clear_ready();
        }
    }

    /// Sends it a signal; does nothing if it has ended.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("cannot signal process {}", self.id()))
            }
        }
    }

    /// Ends it with SIGTERM, after `grace` with SIGKILL; then reaps it.
    ///
    /// # Errors
    /// It cannot be signalled or waited for.
    pub async fn terminate(&mut self, grace: Duration) -> Result<Ended> {
        self.signal(Signal::TERM)?;
        if let Ok(ended) = timeout(grace, self.wait()).await {
            return ended.context("cannot wait for COMMAND");
        }
        self.signal(Signal::KILL)?;
        self.wait().await.context("cannot wait for COMMAND")
    }
}

/// Reaps a child that has ended; none if it has not.
fn reap(pid: Pid, origin: Origin) -> io::Result<Option<Ended>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes an int and a `struct rusage`, both of which live until the call returns.
    let reaped = unsafe {
        libc::wait4(pid.as_raw_pid(), &raw mut status, libc::WNOHANG, usage.as_mut_ptr())
    };
    match reaped {
        0 => Ok(None),
        1.. => {
            // SAFETY: zeroed, and then filled by the kernel; every bit pattern is a valid one.
            let usage = unsafe { usage.assume_init() };
            Ok(Some(Ended {
                status: ExitStatus::from_raw(status),
                wall: origin.started.elapsed(),
                user: duration(usage.ru_utime),
                system: duration(usage.ru_stime),
                // In KiB (getrusage(2)).
                max_rss: Some(usage.ru_maxrss.cast_unsigned() * 1024)
                    .filter(|&max_rss| max_rss > origin.our_rss + SLACK),
                // In blocks of 512 bytes, whatever the device (`task_io_get_inblock`).
                read_bytes: usage.ru_inblock.cast_unsigned() * 512,
            }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.cast_unsigned())
        + Duration::from_micros(time.tv_usec.cast_unsigned())
}
