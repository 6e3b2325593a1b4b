//! Looks whether a cgroup is frozen, so that nobody waits for a task that sleeps in it. Freezes and thaws nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The enforcer of a running engine holds a cgroup at its limit for milliseconds; if nobody may be killed, for all but a
/// part of each second.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// The directory of the cgroup that is frozen, `dir` or one above it; none if it is thawed soon.
pub(super) fn frozen(dir: &Path) -> Option<PathBuf> {
    let read = |dir: &Path, file| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let deadline = Instant::now() + PATIENCE;
    while read(dir, "cgroup.events").lines().any(|line| line == "frozen 1") {
        if Instant::now() > deadline {
            let is_cause = |dir: &&Path| read(dir, "cgroup.freeze").trim() == "1";
            return Some(dir.ancestors().find(is_cause).unwrap_or(dir).to_owned());
        }
        sleep(PAUSE);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_named() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("a/b");
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(frozen(&dir), None);
        fs::write(dir.join("cgroup.events"), "populated 0\nfrozen 1\n").unwrap();
        fs::write(dir.join("cgroup.freeze"), "0\n").unwrap();
        fs::write(top.path().join("a/cgroup.freeze"), "1\n").unwrap();
        assert_eq!(frozen(&dir), Some(top.path().join("a")));
    }
}
