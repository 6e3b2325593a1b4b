//! The kernel's statistics of one BPF program (`bpf_prog_show_fdinfo` in `kernel/bpf/syscall.c`).

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context as _, Result};

/// A program's runs, counted while `BPF_ENABLE_STATS` is on.
#[derive(Clone, Copy, Debug)]
pub struct RunStats {
    /// Time in the program, ns.
    pub run_time_ns: u64,
    /// Runs.
    pub run_cnt: u64,
}

impl RunStats {
    /// Reads the statistics of the program behind `fd`.
    ///
    /// # Errors
    /// When `fd` is not a program, or the kernel does not have them (before Linux 5.1).
    pub fn of(fd: impl AsFd) -> Result<Self> {
        let fd = fd.as_fd();
        Ok(Self { run_time_ns: field(fd, "run_time_ns")?, run_cnt: field(fd, "run_cnt")? })
    }

    /// The difference to `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            run_time_ns: self.run_time_ns - earlier.run_time_ns,
            run_cnt: self.run_cnt - earlier.run_cnt,
        }
    }
}

/// A number in the `fdinfo` of a program.
///
/// # Errors
/// When it is not there.
pub fn field(fd: impl AsFd, name: &str) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        .with_context(|| format!("no {name} in {path}"))
}
