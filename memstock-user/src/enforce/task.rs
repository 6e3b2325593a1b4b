//! Reads from `/proc` what a victim is judged by: size, cgroup and identity of a task. Signals nobody.

use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::kernel_cgroup::directories;
use crate::host::cgroup::display;
use crate::host::process::{Places, Stat, Status, directory, living, processes};
use crate::journal::record::Victim;

/// `OOM_SCORE_ADJ_MIN`: never killed (`include/uapi/linux/oom.h`).
pub const NEVER: i64 = -1000;

/// A process in a cgroup, as of when it was examined.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Task {
    /// Its process id.
    pub pid: i32,
    /// Its start time, in clock ticks since boot; with the pid, this identifies it.
    pub started: u64,
    /// Its name, up to 15 bytes.
    pub comm: String,
    /// Resident pages.
    pub rss: u64,
    /// Pages in swap.
    pub swap: u64,
    /// Pages of its page tables.
    pub page_tables: u64,
    /// `oom_score_adj`, -1000..=1000.
    pub adj: i64,
    /// Whether somebody has killed it and it has not exited yet.
    pub is_dying: bool,
}

impl Task {
    /// Examines a process; `None` if it is gone, has exited, or has no memory of its own.
    pub fn look(pid: i32) -> Option<Self> {
        let Stat { comm, started, .. } = Stat::read(&directory(pid))?;
        let dir = living(pid)?;
        let Stat { rss, .. } = Stat::read(&dir)?;
        if rss == 0 {
            return None;
        }
        let adj = fs::read_to_string(dir.join("oom_score_adj")).ok()?;
        let status = Status::read(&dir)?;
        let [swap, page_tables] = ["VmSwap", "VmPTE"].map(|name| status.pages(name));
        let is_pending = |name| {
            let mask = status.field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
            mask.is_some_and(|mask| mask & SIGKILL != 0)
        };
        let is_dying = ["SigPnd", "ShdPnd"].into_iter().any(is_pending);
        let adj = adj.trim().parse().ok()?;
        Some(Self { pid, started, comm, rss, swap, page_tables, adj, is_dying })
    }

    /// Whether it is in the cgroup `path` itself. True also when its cgroup cannot be read.
    pub fn is_in(&self, path: &Path) -> bool {
        cgroup_of(self.pid).is_none_or(|cgroup| cgroup == path)
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

fn cgroup_of(pid: i32) -> Option<PathBuf> {
    Places::read(&directory(pid))?.unified
}

/// The processes of a cgroup and of those below it.
pub fn pids(dir: &Path) -> Vec<i32> {
    directories(dir).into_iter().flat_map(|(_, dir)| listed(&dir)).collect()
}

/// The processes that a cgroup lists: none if it is removed meanwhile. Those of a threaded cgroup are listed further
/// up.
fn listed(dir: &Path) -> Vec<i32> {
    const NONE: [i32; 3] = [libc::ENOENT, libc::ENODEV, libc::EOPNOTSUPP];
    processes(dir).unwrap_or_else(|error| {
        if !error.raw_os_error().is_some_and(|code| NONE.contains(&code)) {
            log::warn!("cannot read which processes are in {}: {error}", display(dir));
        }
        Vec::new()
    })
}

/// The processes in a subtree that have memory.
pub fn tasks(dir: &Path) -> Vec<Task> {
    pids(dir).into_iter().filter_map(Task::look).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::own_cgroup;

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
}
