//! Reclaims what tasks have mapped: `process_madvise(MADV_PAGEOUT)` (Linux 5.10), largest task first. Without swap this
//! takes `MADV_FREE`d pages, and clean file pages that only one process maps.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};

use super::Request;
use crate::enforce::task::Task;
use crate::host::page_size;
use crate::host::process::living;

/// The most mappings in one call: `UIO_MAXIOV`.
const MAX_MAPPINGS: usize = 1024;

/// Pages out what tasks have mapped, until several times as many pages were advised as are wanted, since some are
/// shared, locked or dirty. Returns whether there was anything to advise.
pub(super) fn pageout(tasks: &[Task], request: &Request<'_>) -> bool {
    const EACH: u64 = 8;
    advise_all(tasks, request, request.nr_pages.saturating_mul(EACH), |task| {
        let maps = read(task, "maps");
        mappings(&maps, request.may_swap)
    })
}

/// Pages out mappings that contain `MADV_FREE`d pages, of all tasks, until the deadline. Returns whether there were
/// any.
pub(super) fn lazyfree(tasks: &[Task], request: &Request<'_>) -> bool {
    let since = quiet_since();
    advise_all(tasks, request, u64::MAX, |task| {
        // Reading smaps takes the kernel 60 ns a page, while the subtree waits.
        if task.started > since {
            return Vec::new();
        }
        // This gives a few lines for the whole process, at a third of the cost.
        if sum_lazyfree(&read(task, "smaps_rollup")) == 0 {
            return Vec::new();
        }
        mappings_with_lazyfree(&read(task, "smaps"))
    })
}

/// Returns since when no task on this host has freed memory lazily (`pglazyfree` in `/proc/vmstat`), in clock ticks
/// since boot. A task started later has no such pages, except those inherited from a parent.
fn quiet_since() -> u64 {
    static LAST: Mutex<(u64, u64)> = Mutex::new((u64::MAX, u64::MAX));
    let vmstat = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = vmstat.lines().find_map(|line| line.strip_prefix("pglazyfree ")?.parse().ok());
    let Some(count) = count else { return u64::MAX };
    let now = clock_gettime(ClockId::Boottime);
    let ticks = clock_ticks_per_second();
    let part = now.tv_nsec.cast_unsigned() * ticks / 1_000_000_000;
    // A task started in this very tick is examined.
    let now = now.tv_sec.cast_unsigned() * ticks + part;
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.0 != count {
        *last = (count, now);
    }
    last.1
}

fn advise_all(
    tasks: &[Task],
    request: &Request<'_>,
    nr_pages: u64,
    mappings: impl Fn(&Task) -> Vec<libc::iovec>,
) -> bool {
    let mut tasks: Vec<_> = tasks.iter().collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.rss));
    let wanted = nr_pages.saturating_mul(page_size());
    let mut advised = 0;
    for task in tasks {
        if advised >= wanted || Instant::now() > request.deadline {
            break;
        }
        // A process that is gone has freed its memory.
        let Some(pid) = Pid::from_raw(task.pid) else { continue };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        advised += advise(&pidfd, &mappings(task));
    }
    advised > 0
}

/// Reads a `/proc` file of a process, in which file names need not be UTF-8; empty if the process is gone.
fn read(task: &Task, name: &str) -> String {
    let text = living(task.pid).and_then(|dir| fs::read(dir.join(name)).ok());
    String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
}

/// Gives the advice; returns the number of bytes for which the kernel took it.
fn advise(pidfd: &OwnedFd, mappings: &[libc::iovec]) -> u64 {
    let (mut rest, mut advised) = (mappings, 0_u64);
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(MAX_MAPPINGS)];
        // SAFETY: the kernel reads `batch.len()` entries of `batch` and takes them as addresses in the other process;
        // the advice changes no memory's contents.
        let done = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                pidfd.as_raw_fd(),
                batch.as_ptr(),
                batch.len(),
                libc::MADV_PAGEOUT,
                0,
            )
        };
        let done = u64::try_from(done).unwrap_or(0);
        advised += done;
        // The kernel stops at the first mapping that cannot be paged out (such as a device's): skip it.
        let mut sum = 0;
        let whole = batch.iter().take_while(|mapping| {
            sum += mapping.iov_len as u64;
            sum <= done
        });
        let whole = whole.count();
        rest = &rest[if whole == batch.len() { whole } else { whole + 1 }..];
    }
    advised
}

/// The mappings in `/proc/PID/maps` that can be reclaimed: of files, and with swap also the others.
fn mappings(maps: &str, may_swap: bool) -> Vec<libc::iovec> {
    maps.lines().filter_map(|line| mapping(line, may_swap)).collect()
}

fn mapping(line: &str, may_swap: bool) -> Option<libc::iovec> {
    let mut fields = line.split_ascii_whitespace();
    let range = range(fields.next()?)?;
    let inode: u64 = fields.nth(3)?.parse().ok()?;
    let name = fields.next().unwrap_or_default();
    let is_special = name.starts_with("[v");
    (!is_special && (inode != 0 || may_swap)).then_some(range)
}

/// `START-END`.
fn range(word: &str) -> Option<libc::iovec> {
    let (start, end) = word.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some(libc::iovec { iov_base: start as *mut libc::c_void, iov_len: end.checked_sub(start)? })
}

/// The sum of the `LazyFree:` lines of `/proc/PID/smaps` or `smaps_rollup`, in KiB.
fn sum_lazyfree(text: &str) -> u64 {
    text.lines().filter_map(lazyfree_kib).sum()
}

fn lazyfree_kib(line: &str) -> Option<u64> {
    line.strip_prefix("LazyFree:")?.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The mappings in `/proc/PID/smaps` whose `LazyFree:` is not 0.
fn mappings_with_lazyfree(smaps: &str) -> Vec<libc::iovec> {
    let (mut current, mut found) = (None, Vec::new());
    for line in smaps.lines() {
        if let Some(mapping) = line.split_ascii_whitespace().next().and_then(range) {
            current = Some(mapping);
        } else if lazyfree_kib(line).is_some_and(|kib| kib > 0) {
            found.extend(current.take());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0-55d1 r-xp 00000000 fe:00 1234 /bin/with space\n\
7f00-7f02 rw-p 00000000 00:00 0 \n\
7fff-8001 rw-p 00000000 00:00 0 [stack]\n\
9000-9001 r-xp 00000000 00:00 0 [vdso]\n";

    #[test]
    fn files_only_without_swap() {
        let lengths = |may_swap| -> Vec<usize> {
            mappings(MAPS, may_swap).iter().map(|mapping| mapping.iov_len).collect()
        };
        assert_eq!(lengths(false), [1]);
        assert_eq!(lengths(true), [1, 2, 2]);
    }

    #[test]
    fn lazyfree_mappings_only() {
        const SMAPS: &str = "\
7f00-7f02 rw-p 00000000 00:00 0 \nRss:  8 kB\nLazyFree:              4 kB\nVmFlags: rd\n\
7f03-7f09 rw-p 00000000 00:00 0 [heap]\nLazyFree:              0 kB\n";
        let lengths: Vec<_> = mappings_with_lazyfree(SMAPS).iter().map(|m| m.iov_len).collect();
        assert_eq!(lengths, [2]);
        assert_eq!(sum_lazyfree(SMAPS), 4);
    }
}
