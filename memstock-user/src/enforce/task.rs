//! What `/proc` says about a task that memory may be taken from: its size, its place, its identity. Signals nobody.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::engine::kernel_cgroup::directories;
use crate::host::process::{Stat, directory, living};
use crate::journal::record::Victim;

/// `OOM_SCORE_ADJ_MIN`: never killed (`include/uapi/linux/oom.h`).
pub const NEVER: i64 = -1000;

/// A process in a cgroup, as it was when it was examined.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Task {
    /// Its process id.
    pub pid: i32,
    /// Its start time, in clock ticks since boot: with the pid, its identity.
    pub started: u64,
    /// Its name, of up to 15 bytes.
    pub comm: String,
    /// Resident pages.
    pub rss: u64,
    /// Pages in swap.
    pub swap: u64,
    /// Pages of its page tables.
    pub page_tables: u64,
    /// `oom_score_adj`, -1000..=1000.
    pub adj: i64,
    /// Whether it has been killed already, by whomever, and has not ended yet.
    pub is_dying: bool,
}

impl Task {
    /// Examines a process; `None` if it is gone, has ended, or has no memory of its own.
    pub fn look(pid: i32) -> Option<Self> {
        let Stat { comm, started, .. } = Stat::read(&directory(pid))?;
        let dir = living(pid)?;
        let Stat { rss, .. } = Stat::read(&dir)?;
        if rss == 0 {
            return None;
        }
        let adj = fs::read_to_string(dir.join("oom_score_adj")).ok()?;
        let status = fs::read_to_string(dir.join("status")).ok()?;
        let [swap, page_tables] = ["VmSwap:", "VmPTE:"].map(|name| pages_in(&status, name));
        let is_pending = |name| {
            let mask = field(&status, name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
            mask.is_some_and(|mask| mask & SIGKILL != 0)
        };
        let is_dying = ["SigPnd:", "ShdPnd:"].into_iter().any(is_pending);
        let adj = adj.trim().parse().ok()?;
        Some(Self { pid, started, comm, rss, swap, page_tables, adj, is_dying })
    }

    /// Whether it is in the cgroup `path` itself.
    pub fn is_in(&self, path: &Path) -> bool {
        cgroup_of(self.pid).is_some_and(|cgroup| cgroup == path)
    }

    /// Whether the process with this pid is still this one, in the subtree of the cgroup `path`.
    pub fn is_still_in(&self, path: &Path) -> bool {
        let same = Self::look(self.pid).is_some_and(|now| now.started == self.started);
        same && cgroup_of(self.pid).is_some_and(|cgroup| cgroup.starts_with(path))
    }
}

impl From<&Task> for Victim {
    fn from(task: &Task) -> Self {
        let Task { pid, comm, rss, swap, page_tables, adj, started: _, is_dying: _ } = task.clone();
        Self {
            victim: pid,
            comm,
            rss_pages: rss,
            swap_pages: swap,
            page_table_pages: page_tables,
            oom_score_adj: adj,
        }
    }
}

/// SIGKILL in a mask of signals.
const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);

/// Pages of a process in swap; 0 when the kernel does not say.
pub fn swapped(pid: i32) -> u64 {
    let status = living(pid).and_then(|dir| fs::read_to_string(dir.join("status")).ok());
    status.map_or(0, |status| pages_in(&status, "VmSwap:"))
}

/// The value of the line `name` of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The same, in pages; 0 where the kernel does not say.
fn pages_in(status: &str, name: &str) -> u64 {
    let kib = field(status, name).and_then(|line| line.strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(0_u64) * 1024 / crate::host::page_size()
}

/// The path of the cgroup v2 of a process (`0::PATH` in `/proc/PID/cgroup`).
fn cgroup_of(pid: i32) -> Option<PathBuf> {
    path_in(&fs::read(format!("/proc/{pid}/cgroup")).ok()?)
}

/// The path of our own cgroup v2.
pub fn own_cgroup() -> Option<PathBuf> {
    path_in(&fs::read("/proc/self/cgroup").ok()?)
}

fn path_in(text: &[u8]) -> Option<PathBuf> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(OsString::from_vec(line.to_vec()).into())
}

/// The processes in the cgroup with the directory `dir` itself.
pub fn pids_of(dir: &Path) -> Vec<i32> {
    // A cgroup that is removed meanwhile, or threaded, lists nobody: its processes are listed above it.
    let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// Including the cgroups below it.
pub fn pids(dir: &Path) -> Vec<i32> {
    directories(dir).iter().flat_map(|(_, dir)| pids_of(dir)).collect()
}

/// The processes with memory in a subtree.
pub fn tasks(dir: &Path) -> Vec<Task> {
    pids(dir).into_iter().filter_map(Task::look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_a_task() {
        let pid = std::process::id().cast_signed();
        let task = Task::look(pid).unwrap();
        assert!(
            task.rss > 0
                && !task.is_dying
                && task.page_tables > 0
                && task.started > 0
                && (NEVER..=1000).contains(&task.adj),
            "{task:?}"
        );
        let own = own_cgroup().unwrap();
        assert!(task.is_still_in(&own) && task.is_still_in(Path::new("/")));
        assert!(!task.is_still_in(Path::new("/memstock-no-such")));
        let other = Task { started: task.started + 1, ..task };
        assert!(!other.is_still_in(Path::new("/")), "the same pid is not the same process");
        assert_eq!(Task::look(i32::MAX), None);
    }

    #[test]
    fn lines_of_status_are_read() {
        assert_eq!(pages_in("VmSwap:\t   8 kB\n", "VmSwap:") * crate::host::page_size(), 8192);
        assert_eq!(field("ShdPnd:\t0000000000000100\n", "ShdPnd:"), Some("0000000000000100"));
    }
}
