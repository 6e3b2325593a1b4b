//! Owns which cgroups can have a limit of memory: not a threaded one. Its threads may be any of a process, whose memory is
//! one; the kernel has no memory controller there either ("Threads" in `Documentation/admin-guide/cgroup-v2.rst`).

use super::{Cgroup, display};
use crate::exit::Failure;
use anyhow::Result;
use std::path::Path;

impl Cgroup {
    /// Refuses a limit for a threaded cgroup, or for one that can be nothing else.
    ///
    /// # Errors
    /// [`Failure::Cgroup`], with the cgroup that can have it.
    pub fn can_be_limited(&self) -> Result<()> {
        if !is_threaded(&self.dir) {
            return Ok(());
        }
        let mut above = self.path.ancestors().zip(self.dir.ancestors()).skip(1);
        let domain = above.find(|(_, dir)| !is_threaded(dir));
        let domain = domain.map_or_else(|| "/".into(), |(path, _)| display(path));
        Err(Failure::Cgroup.error(format!(
            "{} is a threaded cgroup and cannot have a limit: its threads share the memory of their process, which is in \
             {domain}: limit that",
            display(&self.path)
        )))
    }
}

/// `threaded`, or `domain invalid`: one below a threaded one, which no task can join before it is threaded too.
fn is_threaded(dir: &Path) -> bool {
    // The root has no such file.
    let kind = std::fs::read_to_string(dir.join("cgroup.type")).unwrap_or_default();
    matches!(kind.trim_end(), "threaded" | "domain invalid")
}
