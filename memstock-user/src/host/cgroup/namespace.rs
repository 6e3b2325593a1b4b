//! Owns the cgroup namespace in which we look at cgroups.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::host::process::{Stat, directory};

const OURS: &str = "/proc/self/ns/cgroup";
/// kthreadd, which never leaves the first one. In another pid namespace, pid 2 is another process.
const KTHREADD: i32 = 2;
const OF_HOST: &str = "/proc/2/ns/cgroup";

/// Joins the host's cgroup namespace, if we see the host's processes. A pod that sees them still has its own cgroup
/// namespace, where `/proc/self/mountinfo` shows only a part of the hierarchy (`/../..`), and the cgroup paths in
/// `/proc`, which keep us from killing or freezing ourselves, are not real ones. Without permission to join, nothing
/// changes.
///
/// Applies to this thread and those that it starts, so it is called first.
pub fn join_host_namespace() {
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
