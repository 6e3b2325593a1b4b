//! Whether the kernel lets this process do what memstock needs. Found out by trying it: in a container, or on a
//! host that is locked down, a user id says nothing.
//!
//! The one rule for live tests, benches and `cargo xtask`. What is made for the question is gone when it is over.

use std::fs;
use std::io::{self, ErrorKind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::{bpf, cgroup};

/// What is refused, why, and what it takes: one line. Nothing, where all that live tests need is granted.
///
/// The kernel is asked once in a process.
pub fn refusal() -> Option<&'static str> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    ANSWER.get_or_init(|| ask().err()).as_deref()
}

fn ask() -> Result<(), String> {
    granted("a BPF program", bpf::try_to_load())?;
    // By itself: where the kernel asks for CAP_BPF and CAP_PERFMON, it is not needed.
    granted("the list of BPF programs", bpf::list_programs())?;
    a_cgroup()
}

/// The same, where cgroups are needed and no BPF.
pub fn refusal_of_cgroups() -> Option<String> {
    a_cgroup().err()
}

fn a_cgroup() -> Result<(), String> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let mount = cgroup::mount().map_err(|error| format!("{error:#}"))?;
    // Not called memstock-…: that would be a leftover to a live test that runs now.
    let number = MADE.fetch_add(1, Relaxed);
    let dir = mount.join(format!("try-memstock-{}-{number}", std::process::id()));
    granted("a cgroup", fs::create_dir(&dir).and_then(|()| fs::remove_dir(&dir)))
}

fn granted(what: &str, answer: io::Result<()>) -> Result<(), String> {
    answer.map_err(|error| format!("the kernel refuses {what}: {error}{}", hint(&error)))
}

/// What is missing, as far as it can be told.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            ": it takes CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN, as root of the host has them"
        }
        ErrorKind::ReadOnlyFilesystem => ": it takes a host, and not a container",
        // It does not know the helper that reads its memory.
        ErrorKind::InvalidInput => ": it takes a kernel that is not locked down",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: i32) -> String {
        granted("a BPF program", Err(io::Error::from_raw_os_error(errno))).unwrap_err()
    }

    #[test]
    fn a_refusal_is_one_line_that_says_why() {
        for (errno, words) in [
            (libc::EPERM, ["Operation not permitted", "takes CAP_BPF, CAP_PERFMON and CAP_SYS_"]),
            (libc::EINVAL, ["Invalid argument", "locked down"]),
            (libc::ENOSYS, ["not implemented", "a BPF program"]),
            (libc::EROFS, ["Read-only", "container"]),
        ] {
            let said = refused(errno);
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
            assert_eq!(said.lines().count(), 1);
        }
        assert!(!refused(libc::ENOSYS).contains("CAP_BPF"));
    }
}
