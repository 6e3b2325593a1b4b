//! Owns the question which v1 memory cgroup has the tasks of a cgroup v2, without being told: the one of the same path,
//! as container runtimes and systemd make them, if it has the same tasks.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::directories;

/// Looks at the tasks of both, some of which may have come or gone from one look to the next.
const LOOKS: usize = 5;

/// Whether all tasks at and below one cgroup, and there are some, are those at and below the other one, of another
/// hierarchy.
pub(super) fn have_same_tasks(ours: &Path, theirs: &Path) -> bool {
    (0..LOOKS).any(|_| {
        // Forks are in both at once; what is looked at before and after is in both in between, if it stayed.
        let before = all(ours);
        let between = all(theirs);
        let after = all(ours);
        let mut stayed = before.intersection(&after).peekable();
        stayed.peek().is_some()
            && stayed.all(|pid| between.contains(pid))
            && between.iter().all(|pid| before.contains(pid) || after.contains(pid))
    })
}

/// All processes at and below a cgroup.
fn all(dir: &Path) -> BTreeSet<u32> {
    let dirs = directories(dir).into_iter().map(|(_, dir): (PathBuf, _)| dir);
    dirs.filter_map(|dir| processes(&dir).ok()).flatten().collect()
}

/// The processes with a thread in the cgroup.
pub(crate) fn processes(dir: &Path) -> io::Result<Vec<u32>> {
    match fs::read_to_string(dir.join("cgroup.procs")) {
        // A threaded cgroup has threads only (`cgroup_procs_start`).
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            let threads = fs::read_to_string(dir.join("cgroup.threads"))?;
            Ok(numbers(&threads).filter_map(process_of).collect())
        }
        procs => Ok(numbers(&procs?).collect()),
    }
}

/// One number a line; 0 is a process of another pid namespace.
fn numbers(text: &str) -> impl Iterator<Item = u32> {
    text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid != 0)
}

/// The process that a thread is of.
fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_numbers() {
        assert_eq!(numbers("12\n0\nx\n7\n").collect::<Vec<_>>(), [12, 7]);
        assert_eq!(process_of(std::process::id()), Some(std::process::id()));
        let thread =
            std::thread::spawn(|| process_of(rustix::thread::gettid().as_raw_pid() as u32));
        assert_eq!(thread.join().unwrap(), Some(std::process::id()));
    }

    #[test]
    fn the_same_tasks_wherever_they_are_below() {
        let dir = tempfile::tempdir().unwrap();
        let tree = |name: &str, tasks: &[(&str, &str)]| {
            let top = dir.path().join(name);
            fs::create_dir_all(&top).unwrap();
            fs::write(top.join("cgroup.procs"), "").unwrap();
            for (below, pids) in tasks {
                fs::create_dir_all(top.join(below)).unwrap();
                fs::write(top.join(below).join("cgroup.procs"), pids).unwrap();
            }
            top
        };
        let ours = tree("ours", &[("", "7\n"), ("a", "8\n9\n")]);
        for (name, tasks, same) in [
            ("same", &[("", "7\n"), ("a", "9\n8\n")][..], true),
            ("flat", &[("", "7\n8\n9\n")], true),
            ("fewer", &[("", "7\n8\n")], false),
            ("more", &[("", "7\n8\n9\n10\n")], false),
            ("others", &[("", "1\n2\n3\n")], false),
            ("none", &[], false),
        ] {
            assert_eq!(have_same_tasks(&ours, &tree(name, tasks)), same, "{name}");
        }
        assert!(!have_same_tasks(&tree("empty", &[]), &tree("too", &[])), "nobody tells");
    }
}
