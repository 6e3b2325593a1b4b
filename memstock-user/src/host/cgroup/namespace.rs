//! Owns in which cgroup namespace we look at cgroups.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::host::process::{Stat, directory};

const OURS: &str = "/proc/self/ns/cgroup";
/// kthreadd, who never leaves the first one. Where we do not see the host's processes, number 2 is another's.
const KTHREADD: i32 = 2;
const OF_HOST: &str = "/proc/2/ns/cgroup";

/// Joins the host's, if we see the host's processes. A pod that does has a cgroup namespace of its own all the same:
/// there `/proc/self/mountinfo` has only a part of the hierarchy, `/../..`, and the paths of tasks in `/proc`, by
/// which nobody kills or freezes himself, are not those of cgroups. Without the right to join all stays as it is.
///
/// It counts for this thread and those that it starts, so it comes first.
pub fn join_that_of_host() {
    let number = |path| std::fs::metadata(path).map(|found| found.ino()).ok();
    let is_host = Stat::read(&directory(KTHREADD)).is_some_and(|stat| stat.is_kernels());
    if !is_host || number(OURS) == number(OF_HOST) {
        return;
    }
    let joined = File::open(OF_HOST).and_then(|namespace| {
        let kind = Some(LinkNameSpaceType::ControlGroup);
        move_into_link_name_space(namespace.as_fd(), kind).map_err(Into::into)
    });
    if let Err(error) = joined {
        log::debug!("cannot join the host's cgroup namespace: {error}");
    }
}
