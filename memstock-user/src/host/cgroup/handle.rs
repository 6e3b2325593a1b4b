//! Owns the two system calls that translate between a cgroup directory and its id. Must not know what a path means.
//!
//! A kernfs file handle is the 64-bit id of the node, which is the cgroup v2 id
//! (`fs/kernfs/mount.c`, `kernfs_encode_fh` and `__kernfs_fh_to_dentry`).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `FILEID_KERNFS` of `linux/exportfs.h`: the handle is a kernfs node id.
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` with room for a kernfs id.
#[repr(C)]
struct FileHandle {
    handle_bytes: u32,
    handle_type: i32,
    id: u64,
}

impl FileHandle {
    fn new(id: u64) -> Self {
        Self { handle_bytes: size_of::<u64>() as u32, handle_type: FILEID_KERNFS, id }
    }
}

const _: () = assert!(size_of::<FileHandle>() == 16);

/// The id of an opened cgroup directory.
pub(super) fn id(dir: impl AsFd) -> io::Result<u64> {
    name_to_handle(dir, c"", libc::AT_EMPTY_PATH)
}

/// The id of the cgroup whose directory is at `path` below the opened one `root`.
pub(super) fn id_at(root: impl AsFd, path: &Path) -> io::Result<u64> {
    if path.as_os_str().is_empty() {
        return id(root);
    }
    name_to_handle(root, &CString::new(path.as_os_str().as_bytes())?, 0)
}

fn name_to_handle(dir: impl AsFd, path: &CStr, flags: libc::c_int) -> io::Result<u64> {
    let mut handle = FileHandle::new(0);
    let mut mount_id: libc::c_int = 0;
    // SAFETY: the kernel reads a C string, and writes at most `handle_bytes` bytes behind the header of
    // `handle` and one int; all of them live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            flags,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if handle.handle_type != FILEID_KERNFS || handle.handle_bytes as usize != size_of::<u64>() {
        return Err(io::Error::other("the kernel's handle of it is not a 64-bit id"));
    }
    Ok(handle.id)
}

/// Opens the cgroup with this id, in the hierarchy of the directory `root`. Fails with `ESTALE` if there is none.
pub(super) fn open(root: impl AsFd, id: u64) -> io::Result<OwnedFd> {
    let mut handle = FileHandle::new(id);
    // SAFETY: the kernel reads the 16 bytes of `handle`, which lives until the call returns.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            root.as_fd().as_raw_fd(),
            &raw mut handle,
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    match RawFd::try_from(fd) {
        // SAFETY: the call succeeded, so this is a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
