//! Questions about the kernel's BPF.

use std::fs;
use std::io;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::{
    BpfHelper, SyscallError, is_helper_supported, is_map_supported, is_program_supported,
};

use super::probe::Host;
use super::{Finding, State};
use crate::engine::attach::has_tracepoint;
use crate::engine::learn::learn;
use crate::engine::load::{Settings, object};
use crate::engine::migrate;
use crate::host::pages::{Layout, names_tracepoint};

/// Helpers that the kernel half calls.
pub(super) const HELPERS: [BpfHelper; HELPERS_LEN] = {
    use aya_obj::generated::bpf_func_id::*;
    [
        BPF_FUNC_map_lookup_elem,
        BPF_FUNC_map_update_elem,
        BPF_FUNC_map_delete_elem,
        BPF_FUNC_map_lookup_percpu_elem,
        BPF_FUNC_ktime_get_ns,
        BPF_FUNC_tail_call,
        BPF_FUNC_get_smp_processor_id,
        BPF_FUNC_get_current_pid_tgid,
        BPF_FUNC_get_ns_current_pid_tgid,
        BPF_FUNC_get_current_task,
        BPF_FUNC_get_current_cgroup_id,
        BPF_FUNC_get_current_ancestor_cgroup_id,
        BPF_FUNC_probe_read_kernel,
        BPF_FUNC_ringbuf_output,
        BPF_FUNC_loop,
    ]
};
const HELPERS_LEN: usize = 15;

/// Kinds of maps that the kernel half has.
pub(super) const MAPS: [(&str, MapType); 6] = [
    ("array", MapType::Array),
    ("per-CPU array", MapType::PerCpuArray),
    ("hash", MapType::Hash),
    ("per-CPU hash", MapType::PerCpuHash),
    ("program array", MapType::ProgramArray),
    ("ring buffer", MapType::RingBuf),
];

pub(super) fn btf(host: &Host) -> Finding {
    host.of(Layout::read(), |layout| format!("struct page has {} bytes", layout.page_struct_size))
}

pub(super) fn bpf(_: &Host) -> Finding {
    supported(is_program_supported(ProgramType::RawTracePoint))
}

pub(super) fn helper(helper: BpfHelper) -> Finding {
    supported(is_helper_supported(ProgramType::RawTracePoint, helper))
}

pub(super) fn map(kind: MapType) -> Finding {
    supported(is_map_supported(kind).map_err(ProgramError::from))
}

fn supported(answer: Result<bool, ProgramError>) -> Finding {
    match answer {
        Ok(true) => Finding::found(""),
        Ok(false) => Finding::absent("the kernel does not know it"),
        Err(ProgramError::SyscallError(SyscallError { call, io_error })) => {
            let detail = format!("{call}: {io_error}");
            // The kernel was built without it.
            let is_absent = io_error.raw_os_error() == Some(libc::ENOSYS);
            Finding::new(if is_absent { State::Absent } else { State::Unknown }, detail)
        }
        Err(error) => Finding::unknown(format!("{error:#}")),
    }
}

pub(super) fn tracepoint(host: &mut Host, name: &str) -> Finding {
    let attached = match &mut host.baseline {
        Ok(baseline) => has_tracepoint(baseline, name),
        // Second best, and only good for a yes.
        Err(error) => {
            return match names_tracepoint(name) {
                Ok(true) => Finding::found("by BTF; not attached to"),
                _ => Finding::unknown(format!("{error:#}")),
            };
        }
    };
    match attached {
        Ok(true) => Finding::found(""),
        Ok(false) => Finding::absent("the kernel does not know it"),
        Err(error) => host.failed(&error),
    }
}

pub(super) fn migration(host: &Host) -> Finding {
    match migrate::try_it() {
        Ok(()) => Finding::found(""),
        // A kernel whose functions cannot be traced says EPERM to root, too.
        Err(error) if host.is_privileged => Finding::absent(format!("{error:#}")),
        Err(error) => host.failed(&error),
    }
}

pub(super) fn struct_pages(host: &Host) -> Finding {
    host.of(learn(), |pages| {
        format!("in one array at {:#x}, up to page frame {}", pages.base, pages.end_pfn)
    })
}

/// With its atomic instructions and all; nothing is attached or pinned.
pub(super) fn programs(host: &Host) -> Finding {
    let object = object(Settings::default(), true);
    host.of(object, |object| format!("{} programs accepted", object.programs().count()))
}

pub(super) fn lockdown(_: &Host) -> Finding {
    const FILE: &str = "/sys/kernel/security/lockdown";
    match fs::read_to_string(FILE) {
        Ok(text) => {
            let mode = text.split(['[', ']']).nth(1).unwrap_or("unreadable").to_owned();
            let detail = format!("the mode is {mode}");
            match mode.as_str() {
                "none" | "integrity" => Finding::found(detail),
                "confidentiality" => Finding::absent(detail),
                _ => Finding::unknown(detail),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match fs::read_dir("/sys/kernel/security").map(|mut entries| entries.next().is_some()) {
                Ok(true) => Finding::found("the kernel has no lockdown"),
                _ => Finding::unknown_before(
                    "securityfs is not mounted",
                    "mount -t securityfs securityfs /sys/kernel/security",
                ),
            }
        }
        Err(error) => Finding::unknown(format!("{FILE}: {error}")),
    }
}

pub(super) fn jit(_: &Host) -> Finding {
    const FILE: &str = "/proc/sys/net/core/bpf_jit_enable";
    match fs::read_to_string(FILE) {
        Ok(text) if text.trim() == "0" => Finding::absent("programs are interpreted"),
        Ok(text) => Finding::found(format!("net.core.bpf_jit_enable is {}", text.trim())),
        Err(error) => Finding::unknown(format!("{FILE}: {error}")),
    }
}

pub(super) fn run_statistics(_: &Host) -> Finding {
    const FILE: &str = "/proc/sys/kernel/bpf_stats_enabled";
    match Path::new(FILE).try_exists() {
        Ok(true) => Finding::found("kernel.bpf_stats_enabled"),
        Ok(false) => Finding::absent(format!("there is no {FILE}")),
        Err(error) => Finding::unknown(format!("{FILE}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aya_obj::Object;
    use aya_obj::generated::{BPF_CALL, BPF_JMP};

    use super::*;
    use crate::engine::object::OBJECT;

    /// Calls of subprograms are marked by their source register, calls of kernel functions are none here.
    #[test]
    fn the_helpers_and_maps_are_the_objects() {
        let object = Object::parse(OBJECT).unwrap();
        let called: BTreeSet<_> = object
            .functions
            .values()
            .flat_map(|function| &function.instructions)
            .filter(|insn| u32::from(insn.code) == BPF_JMP | BPF_CALL && insn.src_reg() == 0)
            .map(|insn| insn.imm)
            .collect();
        let declared: BTreeSet<_> = HELPERS.iter().map(|&helper| helper as i32).collect();
        // Those that only the log of --trace needs are not declared.
        let log: BTreeSet<_> = [
            BpfHelper::BPF_FUNC_ringbuf_reserve as i32,
            BpfHelper::BPF_FUNC_ringbuf_submit as i32,
            BpfHelper::BPF_FUNC_ringbuf_discard as i32,
        ]
        .into();
        let undeclared: Vec<_> =
            called.difference(&declared).filter(|id| !log.contains(id)).collect();
        let unused: Vec<_> = declared.difference(&called).collect();
        assert!(undeclared.is_empty() && unused.is_empty(), "{undeclared:?} {unused:?}");

        let kinds: BTreeSet<_> = object.maps.values().map(aya_obj::Map::map_type).collect();
        let declared: BTreeSet<_> = MAPS.iter().map(|&(_, kind)| kind as u32).collect();
        assert_eq!(kinds, declared);
    }
}
