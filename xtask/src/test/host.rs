//! Checks that the live tests leave CPUs, pins and cgroups as they found them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const ONLINE: &str = "/sys/devices/system/cpu/online";
const PRESENT: &str = "/sys/devices/system/cpu/present";
const PINS: &str = "/sys/fs/bpf";
/// Prefix of the names of all our pins and test cgroups.
const OURS: &str = "memstock";

/// The list of CPUs that are online.
pub fn cpus() -> Result<String> {
    read(ONLINE)
}

/// One line for each thing that the tests left behind; `before` is [`cpus`] before the tests.
pub fn leftovers(before: &str) -> Result<Vec<String>> {
    let (online, present) = (cpus()?, read(PRESENT)?);
    let mut found = Vec::new();
    // A CPU that was offline before the tests may stay offline.
    if online != present && online != before {
        found.push(format!("CPUs {online} are online, of {present}: write 1 to cpuN/online"));
    }
    for pin in ours(Path::new(PINS), 0) {
        found.push(format!("left behind: {}; `memstock stop` removes it", pin.display()));
    }
    for root in cgroup_roots(&read("/proc/self/mounts")?) {
        for group in ours(&root, usize::MAX) {
            found.push(format!("left behind: {}; `rmdir` removes it", group.display()));
        }
    }
    Ok(found)
}

/// Mount points of every cgroup hierarchy.
fn cgroup_roots(mounts: &str) -> Vec<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let cgroups =
        fields.filter(|fields| fields.get(2).is_some_and(|kind| kind.starts_with("cgroup")));
    cgroups.map(|fields| fields[1].into()).collect()
}

/// Directories named like ours, down to `depth` below `dir`.
fn ours(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // The directory may be gone.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(OURS) {
            found.push(path);
        } else if depth > 0 {
            found.extend(ours(&path, depth - 1));
        }
    }
    found
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_hierarchy_are_searched() {
        let mounts = "proc /proc proc rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let expected = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(cgroup_roots(mounts), expected);
    }

    #[test]
    fn our_directories_are_found_below_others() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("user/memstock-demo/child")).unwrap();
        fs::create_dir_all(dir.path().join("memstock")).unwrap();
        assert_eq!(ours(dir.path(), 0).len(), 1);
        assert_eq!(ours(dir.path(), usize::MAX).len(), 2);
    }
}
