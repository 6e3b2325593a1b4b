//! Describes the host and the kernel at the beginning of a recording.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rustix::system::uname;

use super::kernel;
use crate::host::cgroup::Cgroup;
use crate::host::workload::Workload;
use crate::host::{cpus, meminfo, page_size};
use crate::recording::{Header, Lru};

/// The header of a recording that begins now. `name` is what people call the cgroup; `command` is empty unless the
/// recording runs one.
///
/// # Errors
/// The CPUs cannot be listed.
pub(super) fn header(
    cgroup: &Cgroup,
    name: Option<Workload>,
    command: &[String],
) -> Result<Header> {
    let uname = uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let lru_gen = fs::read_to_string("/sys/kernel/mm/lru_gen/enabled").unwrap_or_default();
    let thp = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    Ok(Header {
        version: env!("CARGO_PKG_VERSION").into(),
        host: text(uname.nodename()),
        kernel: text(uname.release()),
        lru: lru_of(&lru_gen),
        swap: meminfo("SwapTotal"),
        thp: chosen(&thp).unwrap_or("never").into(),
        cpus: u32::try_from(cpus()?.online.len()).unwrap_or(u32::MAX),
        page_size: u32::try_from(page_size()).unwrap_or(u32::MAX),
        cgroup: cgroup.path.clone(),
        name,
        command: command.to_vec(),
        started: started.as_nanos().try_into().unwrap_or(u64::MAX),
        assumes: Vec::new(),
    })
}

/// What is not known of the cgroup: which tracepoints are `missing`, and why nothing is known of its pages' flags.
pub(super) fn lacks(
    cgroup: &Cgroup,
    missing: &[&str],
    flags: Option<&anyhow::Error>,
) -> Vec<String> {
    let accesses = (!missing.is_empty()).then(|| {
        format!(
            "Some accesses to page cache are not known: this kernel lacks the tracepoints {} (Linux 6.12).",
            missing.join(", ")
        )
    });
    let kernel = (!kernel::tells(&cgroup.dir)).then(|| {
        "Slab and kernel stacks are not known: the kernel's own memory controller does not have this cgroup."
            .to_owned()
    });
    let flags =
        flags.map(|error| format!("Dirty, locked and shared memory are not known: {error:#}."));
    accesses.into_iter().chain(kernel).chain(flags).collect()
}

/// Reads a mask whose lowest bit is the switch (`Documentation/admin-guide/mm/multigen_lru.rst`).
fn lru_of(text: &str) -> Lru {
    let digits = text.trim().trim_start_matches("0x");
    let mask = u32::from_str_radix(digits, 16).unwrap_or(0);
    if mask & 1 == 1 { Lru::MultiGen } else { Lru::Classic }
}

/// The word in brackets.
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_understood() {
        assert_eq!(
            [lru_of("0x0007\n"), lru_of("0x0000\n"), lru_of("")],
            [Lru::MultiGen, Lru::Classic, Lru::Classic]
        );
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
    }
}
