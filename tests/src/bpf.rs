//! The one thing a test does to the kernel half behind memstock's back: emptying a map entry.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

// enum bpf_cmd in include/uapi/linux/bpf.h.
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_GET: libc::c_long = 7;

/// The part of `union bpf_attr` that `BPF_OBJ_GET` reads.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` that `BPF_MAP_DELETE_ELEM` reads.
#[repr(C)]
struct MapElem {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Deletes the entry `key` of the map that is pinned at `pin`.
///
/// # Errors
/// When there is no such pin or entry.
pub fn delete_entry(pin: &Path, key: u32) -> Result<()> {
    let map = open(pin).with_context(|| format!("opening the map {}", pin.display()))?;
    let map_fd = u32::try_from(map.as_raw_fd())?;
    let key_at = &raw const key as u64;
    let attr = MapElem { map_fd, padding: 0, key: key_at, value: 0, flags: 0 };
    // SAFETY: the attribute and the key it points to outlive the call; the maps this is used on
    // have u32 keys, and deleting reads the key only.
    let result = unsafe { bpf(BPF_MAP_DELETE_ELEM, &attr) };
    result.map(drop).with_context(|| format!("deleting entry {key} of {}", pin.display()))
}

fn open(pin: &Path) -> Result<OwnedFd> {
    let pathname = CString::new(pin.as_os_str().as_bytes())?;
    let attr = ObjGet { pathname: pathname.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the attribute and the string it points to outlive the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &attr) }?;
    // SAFETY: the kernel has just made this descriptor for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `attr` must be what `command` expects, and what it points to must be there.
unsafe fn bpf<A>(command: libc::c_long, attr: &A) -> io::Result<i32> {
    // SAFETY: by the caller's promise; the kernel reads `size_of::<A>()` bytes and takes the rest
    // of its union as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<A>()) };
    i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)
}
