//! Counts cache misses of processes, if the CPU's counter for them is visible. In many virtual machines it is
//! not.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

// `include/uapi/linux/perf_event.h`.
const PERF_TYPE_HARDWARE: u32 = 0;
const PERF_COUNT_HW_CACHE_MISSES: u64 = 3;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;

/// The first version of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER0`); later fields default to off.
#[repr(C)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    others: [u64; 6],
}

/// Running counters, one per process.
pub struct CacheMisses(Vec<File>);

impl CacheMisses {
    /// Starts to count, in user and kernel mode; `None` if that is impossible here.
    pub fn of(pids: impl Iterator<Item = u32>) -> Option<Self> {
        pids.map(open).collect::<io::Result<_>>().ok().map(Self)
    }

    /// All misses so far.
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn read(&self) -> Result<u64> {
        let one = |mut file: &File| -> io::Result<u64> {
            let mut count = [0; 8];
            file.read_exact(&mut count)?;
            Ok(u64::from_ne_bytes(count))
        };
        self.0.iter().map(one).sum::<io::Result<_>>().context("cannot read a hardware counter")
    }
}

fn open(pid: u32) -> io::Result<File> {
    let attr = Attr {
        kind: PERF_TYPE_HARDWARE,
        size: size_of::<Attr>() as u32,
        config: PERF_COUNT_HW_CACHE_MISSES,
        others: [0; 6],
    };
    let (any_cpu, no_group) = (-1, -1);
    // SAFETY: the kernel reads the attribute, which contains its size, and makes a descriptor for us.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            pid,
            any_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel just made this descriptor, and nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::skip;

    #[test]
    fn they_are_counted_or_they_are_not() {
        let Some(misses) = CacheMisses::of([std::process::id()].into_iter()) else {
            skip("bench::misses", "the kernel counts no cache misses here");
            return;
        };
        let before = misses.read().unwrap();
        crate::workload::pages::round(1 << 14).unwrap();
        assert!(misses.read().unwrap() > before);
    }
}
