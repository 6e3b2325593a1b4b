//! What the kernel counts about one BPF program (`bpf_prog_show_fdinfo` in `kernel/bpf/syscall.c`).

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context as _, Result};

/// Its runs, counted while `BPF_ENABLE_STATS` is on.
#[derive(Clone, Copy, Debug)]
pub struct RunStats {
    /// Time in the program, ns.
    pub run_time_ns: u64,
    /// Runs.
    pub run_cnt: u64,
}

impl RunStats {
    /// Reads those of the program behind `fd`.
    ///
    /// # Errors
    /// `fd` is not a program's, or the kernel does not tell (before Linux 5.1).
    pub fn of(fd: impl AsFd) -> Result<Self> {
        let fd = fd.as_fd();
        Ok(Self { run_time_ns: field(fd, "run_time_ns")?, run_cnt: field(fd, "run_cnt")? })
    }

    /// What has been added since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            run_time_ns: self.run_time_ns - earlier.run_time_ns,
            run_cnt: self.run_cnt - earlier.run_cnt,
        }
    }
}

/// A number that the kernel tells about the descriptor of a program.
///
/// # Errors
/// It does not.
pub fn field(fd: impl AsFd, name: &str) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
        .with_context(|| format!("no {name} in {path}"))
}
