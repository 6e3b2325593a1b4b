//! `bpf(2)` itself, for the commands that aya does not offer.

use std::{io, mem};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Arguments that are all zero, as the kernel requires for unused ones.
pub(super) fn zeroed() -> bpf_attr {
    // SAFETY: all variants are plain integers, for which zeros are valid.
    unsafe { mem::zeroed() }
}

/// Runs a command, which may write to its arguments.
///
/// # Errors
/// Those of the system call.
///
/// # Safety
/// The memory that the arguments refer to is as large as the command expects, and lives until this returns.
pub(super) unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
