//! The direct uses of bpf(2) by tests and benches: try whether it is allowed, load a program that does nothing, and
//! delete a map entry behind memstock's back.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

// enum bpf_cmd in include/uapi/linux/bpf.h.
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
/// `BPF_PROG_TYPE_RAW_TRACEPOINT` of enum `bpf_prog_type` there.
const RAW_TRACEPOINT: u32 = 17;

/// `struct bpf_insn`: code, destination and source, offset, immediate.
type Insn = (u8, u8, i16, i32);

/// A program that reads kernel memory as ours do, but never runs. (The address is 0, a fault that the kernel
/// would catch.)
const READING: [Insn; 6] = [
    (0xbf, 0xa1, 0, 0),   // r1 = r10
    (0x07, 0x01, 0, -8),  // r1 += -8
    (0xb7, 0x02, 0, 8),   // r2 = 8
    (0xb7, 0x03, 0, 0),   // r3 = 0
    (0x85, 0x00, 0, 113), // r0 = bpf_probe_read_kernel(r1, r2, r3)
    (0x95, 0x00, 0, 0),   // exit
];
/// A program that does nothing.
const EMPTY: [Insn; 2] = [
    (0xb7, 0x00, 0, 0), // r0 = 0
    (0x95, 0x00, 0, 0), // exit
];

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

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The part of `union bpf_attr` that `BPF_PROG_GET_NEXT_ID` uses.
#[repr(C)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Loads a program of our kind and unloads it.
///
/// # Errors
/// The kernel's.
pub(crate) fn try_to_load() -> io::Result<()> {
    load(&READING).map(drop)
}

/// Loads a raw tracepoint program that does nothing, to measure what any program costs.
///
/// # Errors
/// The kernel's.
pub fn load_empty() -> io::Result<OwnedFd> {
    load(&EMPTY)
}

fn load(program: &[Insn]) -> io::Result<OwnedFd> {
    let insns: Vec<u8> = program
        .iter()
        .flat_map(|(code, registers, offset, immediate)| {
            let [low, high] = offset.to_le_bytes();
            let [a, b, c, d] = immediate.to_le_bytes();
            [*code, *registers, low, high, a, b, c, d]
        })
        .collect();
    let attr = ProgLoad {
        prog_type: RAW_TRACEPOINT,
        insn_cnt: program.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    // SAFETY: the attribute, the instructions and the string outlive the call, which only reads them.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &raw const attr) }?;
    // SAFETY: the kernel just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks for the id of the first loaded program.
///
/// # Errors
/// The kernel's, unless no program is loaded.
pub(crate) fn list_programs() -> io::Result<()> {
    let mut attr = NextId { start_id: 0, next_id: 0, open_flags: 0 };
    // SAFETY: the attribute outlives the call, which writes to nothing but its `next_id`.
    match unsafe { bpf(BPF_PROG_GET_NEXT_ID, &raw mut attr) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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
    let result = unsafe { bpf(BPF_MAP_DELETE_ELEM, &raw const attr) };
    result.map(drop).with_context(|| format!("deleting entry {key} of {}", pin.display()))
}

fn open(pin: &Path) -> Result<OwnedFd> {
    let pathname = CString::new(pin.as_os_str().as_bytes())?;
    let attr = ObjGet { pathname: pathname.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the attribute and the string it points to outlive the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &raw const attr) }?;
    // SAFETY: the kernel just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `attr` must be what `command` expects, writable where it writes, and its pointers must be valid.
unsafe fn bpf<A>(command: libc::c_long, attr: *const A) -> io::Result<i32> {
    // SAFETY: by the caller's promise; the kernel reads `size_of::<A>()` bytes and takes the rest
    // of its union as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<A>()) };
    i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)
}
