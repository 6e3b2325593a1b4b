//! One pinned program: opens it and reads the kernel's counts about it.

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

/// Opens a pinned program of any type, to read the kernel's counts about it.
///
/// # Errors
/// The pin cannot be opened.
pub fn fd(pins: &Pins, name: &str) -> Result<ProgramFd> {
    let path = pins.program(name);
    ProgramInfo::from_pin(&path)
        .and_then(|info| info.fd())
        .with_context(|| format!("cannot open the pinned program {}", path.display()))
}

/// Runs of the program behind `fd` that the kernel skipped because it was already running on that CPU
/// (`bpf_prog_show_fdinfo` in `kernel/bpf/syscall.c`).
///
/// # Errors
/// `fd` is not a program's, or the kernel does not report it (before Linux 5.12).
pub fn recursion_misses(fd: &ProgramFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
        .with_context(|| format!("no recursion_misses in {path}"))
}
