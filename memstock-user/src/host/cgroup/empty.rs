//! Whether a cgroup is empty.

use super::Cgroup;
use std::fs;

impl Cgroup {
    /// Whether neither it nor a cgroup below it has tasks, and the kernel's memory controller, if it is there, charges
    /// nothing to it. False if the kernel does not say.
    pub fn is_empty(&self) -> bool {
        let read = |file| fs::read_to_string(self.dir.join(file));
        let has_no_task =
            read("cgroup.events").is_ok_and(|it| it.lines().any(|line| line == "populated 0"));
        let is_charged = read("memory.current").is_ok_and(|it| it.trim() != "0");
        has_no_task && !is_charged
    }
}
