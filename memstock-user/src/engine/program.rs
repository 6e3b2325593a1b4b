//! One pinned program: opening it, and what the kernel counts about it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context as _, Result};
use aya::programs::{ProgramFd, ProgramInfo, RawTracePoint};

use super::pins::Pins;

/// Opens a pinned program of the engine.
///
/// # Errors
/// The pin cannot be opened.
pub fn open(pins: &Pins, name: &str) -> Result<RawTracePoint> {
    let path = pins.program(name);
    RawTracePoint::from_pin(&path)
        .with_context(|| format!("cannot open the pinned program {}", path.display()))
}

/// Opens a pinned program of any type, for what the kernel counts about it.
///
/// # Errors
/// The pin cannot be opened.
pub fn fd(pins: &Pins, name: &str) -> Result<ProgramFd> {
    let path = pins.program(name);
    ProgramInfo::from_pin(&path)
        .and_then(|info| info.fd())
        .with_context(|| format!("cannot open the pinned program {}", path.display()))
}

/// The kernel's run counts of one program (`bpf_prog_show_fdinfo` in `kernel/bpf/syscall.c`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Time in the program, ns; counted while `BPF_ENABLE_STATS` is on.
    pub run_time_ns: u64,
    /// Runs; counted while `BPF_ENABLE_STATS` is on.
    pub run_cnt: u64,
    /// Runs skipped because the program was running already on that CPU; always counted.
    pub recursion_misses: u64,
}

impl RunStats {
    /// Reads the counts of the program behind `fd`.
    ///
    /// # Errors
    /// `fd` is not a program's, or the kernel does not tell (before Linux 5.12).
    pub fn of(fd: &impl AsFd) -> Result<Self> {
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
                .with_context(|| format!("no {name} in {path}"))
        };
        Ok(Self {
            run_time_ns: field("run_time_ns")?,
            run_cnt: field("run_cnt")?,
            recursion_misses: field("recursion_misses")?,
        })
    }

    /// What has been added since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            run_time_ns: self.run_time_ns - earlier.run_time_ns,
            run_cnt: self.run_cnt - earlier.run_cnt,
            recursion_misses: self.recursion_misses - earlier.recursion_misses,
        }
    }
}
