//! Finds the v1 memory cgroup of a cgroup v2: the one of the same path, as container runtimes and systemd create them,
//! if it has the same tasks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::directories;
use crate::host::process::{Places, directory, is_ending, processes_with_threads};

/// Whether all tasks at and below the cgroup v2 `path` are also at and below that path of the v1 memory hierarchy, and
/// there is at least one; `dirs` are the two directories. Each task's two places are read at once, so tasks that fork
/// or move meanwhile do not matter.
pub(super) fn have_same_tasks(path: &Path, dirs: [&Path; 2]) -> bool {
    let mut has_some = false;
    let all: BTreeSet<_> = dirs.into_iter().flat_map(all).collect();
    for pid in all {
        // A task that cannot be read has ended.
        let Some(Places { unified, memory }) = Places::read(&directory(pid)) else { continue };
        match [unified, memory].map(|place| place.is_some_and(|place| place.starts_with(path))) {
            [true, true] => has_some = true,
            [false, false] => {}
            _ if is_ending(pid) => {}
            _ => return false,
        }
    }
    has_some
}

/// All processes at and below a cgroup.
fn all(dir: &Path) -> BTreeSet<i32> {
    let dirs = directories(dir).into_iter().map(|(_, dir): (PathBuf, _)| dir);
    dirs.filter_map(|dir| processes_with_threads(&dir).ok()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
        let is_v1 = Places::read("/proc/self".as_ref()).unwrap().memory.is_some();
        let everywhere = Path::new("/");
        assert_eq!(have_same_tasks(everywhere, [&own, &empty]), is_v1);
        assert!(!have_same_tasks(everywhere, [&empty, &empty]), "nobody tells");
        assert!(!have_same_tasks(Path::new("/no-such"), [&own, &own]), "it is in neither");
    }
}
