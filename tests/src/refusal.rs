//! Whether the kernel lets this process do what memstock needs. It tries, since in a container or on a locked-down host
//! the user id says nothing.
//!
//! Live tests, benches and `cargo xtask` all use this. What it makes in order to try, it removes at once.

use std::fs;
use std::io::{self, ErrorKind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::{bpf, cgroup};

/// One line that says what is refused, why, and what it takes; `None` if live tests can run here.
///
/// Tries only once per process.
pub fn refusal() -> Option<&'static str> {
    static ANSWER: OnceLock<Option<String>> = OnceLock::new();
    ANSWER.get_or_init(|| ask().err()).as_deref()
}

fn ask() -> Result<(), String> {
    granted("a BPF program", bpf::try_to_load())?;
    // Tried separately: it takes CAP_SYS_ADMIN, and loading takes only CAP_BPF and CAP_PERFMON.
    granted("the list of BPF programs", bpf::list_programs())?;
    a_cgroup()
}

/// As [`refusal`], for tests that need cgroups but no BPF.
pub fn refusal_of_cgroups() -> Option<String> {
    a_cgroup().err()
}

fn a_cgroup() -> Result<(), String> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let mount = cgroup::mount().map_err(|error| format!("{error:#}"))?;
    // Not called memstock-…: a live test that runs now would take it for a leftover.
    let number = MADE.fetch_add(1, Relaxed);
    let dir = mount.join(format!("try-memstock-{}-{number}", std::process::id()));
    granted("a cgroup", fs::create_dir(&dir).and_then(|()| fs::remove_dir(&dir)))
}

fn granted(what: &str, answer: io::Result<()>) -> Result<(), String> {
    answer.map_err(|error| format!("the kernel refuses {what}: {error}{}", hint(&error)))
}

/// What is missing, if the error shows it.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            ": it takes CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN, as root of the host has them"
        }
        ErrorKind::ReadOnlyFilesystem => ": it takes a host, and not a container",
        // The helper that reads kernel memory is unknown.
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
