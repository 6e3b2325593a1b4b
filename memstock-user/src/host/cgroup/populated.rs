//! Whether a cgroup has tasks.

use super::Cgroup;
use std::fs;

impl Cgroup {
    /// Whether it or a cgroup below it has tasks. If the kernel does not say, it may have some.
    pub fn is_populated(&self) -> bool {
        fs::read_to_string(self.dir.join("cgroup.events"))
            .map_or(true, |events| !events.lines().any(|line| line == "populated 0"))
    }
}
