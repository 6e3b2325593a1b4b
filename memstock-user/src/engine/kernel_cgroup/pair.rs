//! Owns the question which v1 memory cgroup has the tasks of a cgroup v2, without being told: the one of the same path,
//! as container runtimes and systemd make them, if it has the same tasks.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::directories;

/// `PF_EXITING` (`include/linux/sched.h`): a task that is about to end is in no cgroup v1 any more.
const EXITING: u64 = 4;

/// Whether all tasks at and below the cgroup `path` of v2, and there are some, are at and below that of the v1 memory
/// hierarchy; `dirs` are the two. Of a task both are told at once, so those that fork or move meanwhile are no matter.
pub(super) fn have_same_tasks(path: &Path, dirs: [&Path; 2]) -> bool {
    let mut has_some = false;
    let all: BTreeSet<_> = dirs.into_iter().flat_map(all).collect();
    for pid in all {
        // One that cannot be asked has ended.
        let Ok(text) = fs::read(format!("/proc/{pid}/cgroup")) else { continue };
        match places(&text).map(|place| place.is_some_and(|place| place.starts_with(path))) {
            [true, true] => has_some = true,
            [false, false] => {}
            _ if is_ending(pid) => {}
            _ => return false,
        }
    }
    has_some
}

/// Where a task is by the text of its `cgroup` file in `/proc`: on v2, and in the v1 memory hierarchy.
fn places(text: &[u8]) -> [Option<&Path>; 2] {
    let mut places = [None; 2];
    for line in text.split(|&byte| byte == b'\n') {
        // "4:memory,hugetlb:/path" and "0::/path".
        let mut parts = line.splitn(3, |&byte| byte == b':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = Some(Path::new(OsStr::from_bytes(path)));
        if controllers.is_empty() {
            places[0] = path;
        } else if controllers.split(|&byte| byte == b',').any(|name| name == b"memory") {
            places[1] = path;
        }
    }
    places
}

fn is_ending(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name is in brackets and may hold anything; the sixth after the state are the flags.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    let flags = fields.and_then(|fields| fields.split(' ').nth(6)?.parse::<u64>().ok());
    flags.is_none_or(|flags| flags & EXITING != 0)
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
    fn a_task_is_in_two_places() {
        let text = b"13:name=x:/x\n4:hugetlb,memory:/a/b:c\n1:cpu:/y\n0::/a \xff\n";
        let both = [OsStr::from_bytes(b"/a \xff"), OsStr::new("/a/b:c")];
        assert_eq!(places(text), both.map(|path| Some(Path::new(path))));
        assert_eq!(places(b"0::/a\n"), [Some(Path::new("/a")), None]);
        assert_eq!(places(b""), [None, None]);
        assert!(!is_ending(std::process::id()) && is_ending(u32::MAX));
    }

    #[test]
    fn those_of_a_task_are_compared() {
        let dir = tempfile::tempdir().unwrap();
        let procs = |name: &str, text: String| {
            let dir = dir.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("cgroup.procs"), text).unwrap();
            dir
        };
        let (own, empty) =
            (procs("own", std::process::id().to_string()), procs("empty", String::new()));
        let is_v1 = places(&fs::read("/proc/self/cgroup").unwrap())[1].is_some();
        let everywhere = Path::new("/");
        assert_eq!(have_same_tasks(everywhere, [&own, &empty]), is_v1);
        assert!(!have_same_tasks(everywhere, [&empty, &empty]), "nobody tells");
        assert!(!have_same_tasks(Path::new("/no-such"), [&own, &own]), "it is in neither");
    }
}
