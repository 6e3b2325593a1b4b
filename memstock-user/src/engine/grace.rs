//! Grace periods: waits until no running program can still use what it read before.
//!
//! The kernel waits for running programs (`synchronize_rcu`) when user space changes an array of maps
//! (`maybe_wait_bpf_programs` in `kernel/bpf/syscall.c`), on all CPUs and whether programs can be preempted or not.
//! `membarrier(2)` does not: it is refused if there are `nohz_full` CPUs, and does not wait if there is only one CPU.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya_obj::generated::{bpf_cmd, bpf_map_type};

use super::syscall::{bpf, zeroed};

/// Waits until every program that is running now, on any CPU, has returned.
///
/// # Errors
/// The kernel refuses BPF maps.
pub fn grace_period() -> Result<()> {
    let inner = array(bpf_map_type::BPF_MAP_TYPE_ARRAY, None)?;
    let outer = array(bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS, Some(inner.as_fd()))?;
    let (key, value) = (0_u32, inner.as_raw_fd());
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = outer.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = (&raw const key) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = (&raw const value) as u64;
    // SAFETY: the kernel reads a key and a value of four bytes, which live until it returns.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr) }
        .map(drop)
        .context("cannot wait for running programs")
}

/// An array of one number, or of one map like `inner`.
fn array(kind: bpf_map_type, inner: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_1.map_type = kind as u32;
    attr.__bindgen_anon_1.key_size = 4;
    attr.__bindgen_anon_1.value_size = 4;
    attr.__bindgen_anon_1.max_entries = 1;
    attr.__bindgen_anon_1.inner_map_fd = inner.map_or(0, |fd| fd.as_raw_fd().cast_unsigned());
    // SAFETY: the arguments refer to no memory.
    let fd = unsafe { bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr) }.context("cannot make a BPF map")?;
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends() {
        if memstock_tests::live::is_refused() {
            return;
        }
        grace_period().unwrap();
    }
}
