//! Reclaims what tasks have mapped: `process_madvise(MADV_PAGEOUT)` (Linux 5.10), the largest first.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Wish;
use crate::enforce::task::Task;
use crate::host::page_size;

/// Mappings that one call is about: `UIO_MAXIOV`.
const MAX_MAPPINGS: usize = 1024;

/// Pages out the mappings of `tasks` until as many pages were advised as is wished, several times over:
/// of what is advised, some is shared, locked or dirty. Says whether there was anything to advise.
pub(super) fn pageout(tasks: &[Task], wish: Wish) -> bool {
    const EACH: u64 = 8;
    let mut tasks: Vec<_> = tasks.iter().collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.rss));
    let wanted = wish.nr_pages.saturating_mul(EACH * page_size());
    let mut advised = 0;
    for task in tasks {
        if advised >= wanted {
            break;
        }
        // One that is gone gives its memory back anyway.
        let Some(pid) = Pid::from_raw(task.pid) else { continue };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let maps = fs::read_to_string(format!("/proc/{}/maps", task.pid)).unwrap_or_default();
        advised += advise(&pidfd, &mappings(&maps, wish.may_swap));
    }
    advised > 0
}

/// The bytes that the kernel took the advice for.
fn advise(pidfd: &OwnedFd, mappings: &[libc::iovec]) -> u64 {
    let (mut rest, mut advised) = (mappings, 0_u64);
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(MAX_MAPPINGS)];
        // SAFETY: the kernel reads `batch.len()` entries of `batch`, and takes what they say as addresses
        // of the other process; the advice changes no memory's contents.
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
        // It stops at the first mapping that cannot be paged out (a device's, say): that one is left out.
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

/// The mappings in `/proc/PID/maps` that can be reclaimed: of files, and others where there is swap.
fn mappings(maps: &str, may_swap: bool) -> Vec<libc::iovec> {
    maps.lines().filter_map(|line| mapping(line, may_swap)).collect()
}

fn mapping(line: &str, may_swap: bool) -> Option<libc::iovec> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let inode: u64 = fields.nth(3)?.parse().ok()?;
    let name = fields.next().unwrap_or_default();
    let is_special = name.starts_with("[v");
    if is_special || (inode == 0 && !may_swap) {
        return None;
    }
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some(libc::iovec { iov_base: start as *mut libc::c_void, iov_len: end.checked_sub(start)? })
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
    fn our_own_files_can_be_advised() {
        let own = Task::look(std::process::id().cast_signed()).unwrap();
        let is_advised = pageout(&[own], Wish { nr_pages: 1, may_swap: false });
        // The filter of a container that keeps BPF from us may keep process_madvise(2) from us as well.
        if !is_advised && memstock_tests::live::is_refused() {
            return;
        }
        assert!(is_advised);
        assert!(!pageout(&[], Wish { nr_pages: 1, may_swap: false }));
    }
}
