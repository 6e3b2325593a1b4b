//! Owns which cgroups can have a limit of memory: all but threaded ones. The threads of one process, which share its
//! memory, may be in several of these; the kernel has no memory controller there either ("Threads" in
//! `Documentation/admin-guide/cgroup-v2.rst`).

use super::{Cgroup, display};
use crate::exit::Failure;
use anyhow::Result;
use std::path::Path;

impl Cgroup {
    /// Refuses a limit for a cgroup that is threaded or can only become threaded.
    ///
    /// # Errors
    /// [`Failure::Cgroup`], naming the cgroup that can have one.
    pub fn can_be_limited(&self) -> Result<()> {
        if !is_threaded(&self.dir) {
            return Ok(());
        }
        let mut above = self.path.ancestors().zip(self.dir.ancestors()).skip(1);
        let domain = above.find(|(_, dir)| !is_threaded(dir));
        let domain = domain.map_or_else(|| "/".into(), |(path, _)| display(path));
        Err(Failure::Cgroup.error(format!(
            "{} is a threaded cgroup and cannot have a limit: its threads share the memory of their process, which is in \
             {domain}: limit that one",
            display(&self.path)
        )))
    }
}

/// `threaded`, or `domain invalid`: below a threaded one, and no task can join before it is threaded too.
fn is_threaded(dir: &Path) -> bool {
    // The root has no such file.
    let kind = std::fs::read_to_string(dir.join("cgroup.type")).unwrap_or_default();
    matches!(kind.trim_end(), "threaded" | "domain invalid")
}
