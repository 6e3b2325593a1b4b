//! Owns what `/proc` says of a task that memory may be taken from: its size, its place, its identity. Must
//! not signal anybody.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::kernel_cgroup::directories;

/// `OOM_SCORE_ADJ_MIN`: never to be killed (`include/uapi/linux/oom.h`).
pub const NEVER: i64 = -1000;

/// A process in a cgroup, as it was when it was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Task {
    /// Its process id.
    pub pid: i32,
    /// When it was started, in clock ticks since boot: with the pid, its identity.
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
}

impl Task {
    /// Looks at a process; `None` when it is gone, has ended, or has no memory of its own.
    pub fn look(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let Stat { comm, state, started, rss } = Stat::parse(&stat)?;
        if matches!(state, 'Z' | 'X') || rss == 0 {
            return None;
        }
        let adj = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?;
        let [swap, page_tables] = status_pages(pid, ["VmSwap:", "VmPTE:"]);
        let adj = adj.trim().parse().ok()?;
        Some(Self { pid, started, comm, rss, swap, page_tables, adj })
    }

    /// Whether it is in the cgroup `path` itself.
    pub fn is_in(&self, path: &Path) -> bool {
        cgroup_of(self.pid).is_some_and(|cgroup| cgroup == path)
    }

    /// Whether the process with this pid still is this one, in the subtree of the cgroup `path`.
    pub fn is_still_in(&self, path: &Path) -> bool {
        let same = Self::look(self.pid).is_some_and(|now| now.started == self.started);
        same && cgroup_of(self.pid).is_some_and(|cgroup| cgroup.starts_with(path))
    }
}

/// The fields of `/proc/PID/stat` that are used (proc_pid_stat(5)).
struct Stat {
    comm: String,
    state: char,
    started: u64,
    rss: u64,
}

impl Stat {
    fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        // The name may hold anything, brackets too.
        let (name, rest) = text.rsplit_once(") ")?;
        let comm = name.split_once('(')?.1.to_owned();
        // The first of these is field 3.
        let fields: Vec<_> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            comm,
            state: field(3)?.chars().next()?,
            started: field(22)?.parse().ok()?,
            rss: field(24)?.parse().ok()?,
        })
    }
}

/// Pages of a process in swap; 0 when the kernel does not say.
pub fn swapped(pid: i32) -> u64 {
    let [swap] = status_pages(pid, ["VmSwap:"]);
    swap
}

/// What these lines of `/proc/PID/status` say, in pages; 0 for what the kernel does not say.
fn status_pages<const N: usize>(pid: i32, names: [&str; N]) -> [u64; N] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    names.map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kib.unwrap_or(0) * 1024 / crate::host::page_size()
    })
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
    // One that is removed meanwhile, or threaded, lists nobody: its processes are listed above it.
    let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// Those of the cgroups below it as well.
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
    fn names_may_look_like_the_rest() {
        let fields = (4..=24).map(|n| format!(" {n}")).collect::<String>();
        let stat = Stat::parse(format!("7 (a) R (b) S{fields} 25").as_bytes()).unwrap();
        assert_eq!((stat.comm.as_str(), stat.state), ("a) R (b", 'S'));
        assert_eq!((stat.started, stat.rss), (22, 24));
        assert!(Stat::parse(b"7 (a) S 1 2").is_none());
    }
}
