//! Owns which physical pages a process has mapped, from `/proc/PID/maps` and `/proc/PID/pagemap` (fs/proc/task_mmu.c).
//! Must not judge the pages.

use super::words;
use crate::exit::{Classify as _, Failure};
use crate::host::page_size;
use crate::host::process::living;
use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use std::ffi::c_void;
use std::fs::{self, File};
use std::io;
use std::ops::Range;

/// Entries of pagemap read at once: 64 KiB, for 32 MiB of addresses.
const BLOCK: usize = 8192;
/// Ranges that one scan can return.
const REGIONS: usize = 512;

/// `PM_PRESENT`.
const PRESENT: u64 = 1 << 63;
/// `PM_FILE`.
const FILE: u64 = 1 << 61;
/// `PM_MMAP_EXCLUSIVE`.
const EXCLUSIVE: u64 = 1 << 56;
/// `PM_PFRAME_MASK`.
const PFN: u64 = (1 << 55) - 1;

/// A page that a process has mapped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mapped {
    /// Its page frame number.
    pub pfn: u64,
    /// It belongs to a file, tmpfs or other shared memory; it is not private memory.
    pub is_file_or_shared: bool,
    /// No other process has it mapped, and this one only once.
    pub is_exclusive: bool,
}

impl Mapped {
    /// `None` if no page is present.
    ///
    /// # Errors
    ///
    /// When the kernel hides the page frame number.
    fn from_entry(entry: u64) -> io::Result<Option<Self>> {
        if entry & PRESENT == 0 {
            return Ok(None);
        }
        // No process has frame 0: the kernel reports it without CAP_SYS_ADMIN.
        if entry & PFN == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Some(Self {
            pfn: entry & PFN,
            is_file_or_shared: entry & FILE != 0,
            is_exclusive: entry & EXCLUSIVE != 0,
        }))
    }
}

/// Calls `visit` with each page that the process has mapped and that is in memory, in the order of addresses; twice
/// with a page that is mapped twice.
///
/// Not every page is memory of processes: the vDSO is the kernel's, and drivers map their own pages. Check
/// `/proc/kpageflags` ([`Kind::is_user`](super::Kind::is_user)) before using one. Zero pages are left out if the kernel
/// tells them apart (`PAGEMAP_SCAN`, Linux 6.7). There, addresses without pages cost nothing; before, each TiB of them
/// takes about a second.
///
/// If the process ends or calls execve(2) meanwhile, that is no error: the rest of its pages is left out. Pages that it
/// maps or unmaps meanwhile may be left out or not. Kernel threads have no pages.
///
/// # Errors
///
/// `PermissionDenied` when we may not look at the process, or lack CAP_SYS_ADMIN; others of read(2).
pub fn mapped_pages(pid: i32, visit: impl FnMut(Mapped)) -> io::Result<()> {
    match walk(pid, scan, visit) {
        Err(error) if is_gone(&error) => Ok(()),
        done => done,
    }
}

/// The page frame number of this process's page at `address`.
///
/// # Errors
///
/// [`Failure::Permission`] when the kernel hides it from us; any other failure when no page is present: it has to be
/// touched first.
pub fn own_pfn(address: *const u8) -> Result<u64> {
    let denied = || "the kernel hides page frame numbers from us: run it with sudo".to_string();
    let mapped = File::open("/proc/self/pagemap").and_then(|pagemap| {
        let mut entry = [0];
        words::read(&pagemap, address.addr() as u64 / page_size(), &mut entry)?;
        Mapped::from_entry(entry[0])
    });
    match mapped {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(error).classify(Failure::Permission, denied)
        }
        mapped => Ok(mapped
            .context("cannot read /proc/self/pagemap")?
            .with_context(|| format!("there is no page at {address:p}: touch it first"))?
            .pfn),
    }
}

fn is_gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::SRCH].iter().any(|gone| error.raw_os_error() == Some(gone.raw_os_error()))
}

/// `scan` finds the present pages, and returns whether this kernel can do that; if not, the entries of all mapped
/// addresses are read, present or not.
fn walk(pid: i32, scan: Scanner, mut visit: impl FnMut(Mapped)) -> io::Result<()> {
    let dir = living(pid).ok_or(Errno::SRCH)?;
    let pagemap = File::open(dir.join("pagemap"))?;
    let ranges = mapped_ranges(&fs::read(dir.join("maps"))?);
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(()) };
    // An entry can be read only if the process had memory when the file was opened. If it had none, some kernels crash
    // in the scan (`pagemap_open` accepted a missing mm).
    if words::read(&pagemap, first.start / page_size(), &mut [0])? == 0 {
        return Ok(());
    }
    let mut entries = vec![0; BLOCK];
    let mut read = |range| read_range(&pagemap, range, &mut entries, &mut visit);
    if !scan(&pagemap, first.start..last.end, &mut read)? {
        ranges.into_iter().try_for_each(read)?;
    }
    Ok(())
}

/// Visits the present pages of a range of addresses.
fn read_range(
    pagemap: &File,
    range: Range<u64>,
    entries: &mut [u64],
    visit: &mut impl FnMut(Mapped),
) -> io::Result<()> {
    let (mut next, end) = (range.start / page_size(), range.end / page_size());
    while next < end {
        let wanted = usize::try_from(end - next).unwrap_or(BLOCK).min(entries.len());
        let count = words::read(pagemap, next, &mut entries[..wanted])?;
        for &entry in &entries[..count] {
            if let Some(mapped) = Mapped::from_entry(entry)? {
                visit(mapped);
            }
        }
        // The process has ended.
        if count < wanted {
            return Err(Errno::SRCH.into());
        }
        next += count as u64;
    }
    Ok(())
}

/// The ranges of addresses in `maps` that can hold memory of processes, ascending.
fn mapped_ranges(maps: &[u8]) -> Vec<Range<u64>> {
    maps.split(|&byte| byte == b'\n').filter_map(mapped_range).collect()
}

/// `7f00-7f10 r--p 00000000 08:01 123   /a path`; `None` for a range that has no memory of processes.
fn mapped_range(line: &[u8]) -> Option<Range<u64>> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let (start, end) = str::from_utf8(fields.next()?).ok()?.split_once('-')?;
    let path = fields.nth(4)?.trim_ascii_start();
    // Left out: the kernel's own, which is outside of the addresses of processes or made of device registers, and what
    // drivers map. Some files in /dev are ordinary memory: /dev/zero, and tmpfs and hugetlbfs mounted there.
    let memory = [&b"/dev/zero"[..], b"/dev/shm/", b"/dev/hugepages/"];
    let is_device =
        path.starts_with(b"/dev/") && !memory.iter().any(|prefix| path.starts_with(prefix));
    if is_device || path.starts_with(b"[vsyscall]") || path.starts_with(b"[vvar") {
        return None;
    }
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

/// `struct pm_scan_arg` (`include/uapi/linux/fs.h`).
#[derive(Default)]
#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArg>() == 96);

/// `struct page_region`: a range of addresses.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// Called with each range.
type Found<'a> = &'a mut dyn FnMut(Range<u64>) -> io::Result<()>;
type Scanner = fn(&File, Range<u64>, Found<'_>) -> io::Result<bool>;

/// Calls `found` with the ranges of addresses that are present and not zero pages, ascending; returns `false` if this
/// kernel cannot scan.
fn scan(pagemap: &File, range: Range<u64>, found: Found<'_>) -> io::Result<bool> {
    let mut regions = [Region::default(); REGIONS];
    let mut start = range.start;
    while start < range.end {
        let arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            start,
            end: range.end,
            category_inverted: PAGE_IS_PFNZERO,
            category_mask: PAGE_IS_PRESENT | PAGE_IS_PFNZERO,
            return_mask: PAGE_IS_PRESENT,
            ..ScanArg::default()
        };
        // SAFETY: see the implementation of `Ioctl`; a file that is no pagemap knows no such request.
        let scanned = unsafe { ioctl(pagemap, Scan { arg, regions: &mut regions }) };
        let (count, walk_end) = match scanned {
            Err(Errno::NOTTY) => return Ok(false),
            Err(Errno::INTR) => continue,
            scanned => scanned?,
        };
        for region in regions.iter().take(count) {
            found(region.start..region.end)?;
        }
        if walk_end <= start {
            return Err(io::Error::other("PAGEMAP_SCAN makes no progress"));
        }
        start = walk_end;
    }
    Ok(true)
}

struct Scan<'a> {
    arg: ScanArg,
    regions: &'a mut [Region],
}

// SAFETY: the opcode is that of PAGEMAP_SCAN and its argument is a struct pm_scan_arg, which the kernel
// writes, as it does at most `vec_len` regions from `vec` on: those that `regions` borrows mutably.
unsafe impl Ioctl for Scan<'_> {
    /// How many regions were found, and the address up to which it has scanned.
    type Output = (usize, u64);

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<ScanArg>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.arg.vec = self.regions.as_mut_ptr().expose_provenance() as u64;
        self.arg.vec_len = self.regions.len() as u64;
        (&raw mut self.arg).cast()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        arg: *mut c_void,
    ) -> rustix::io::Result<Self::Output> {
        // SAFETY: rustix passes what `as_ptr` returned, and the argument is still there.
        let walk_end = unsafe { (*arg.cast::<ScanArg>()).walk_end };
        Ok((usize::try_from(out).map_err(|_| Errno::INVAL)?, walk_end))
    }
}

#[cfg(test)]
mod tests;
