//! The facilities, each declared once: what it is for, what is lost without it, and the remedy.

use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::probe::Probe;
use super::{bpf, system};
use crate::engine::object::{ATTACHMENTS, Attachment, Without};

/// Whether memstock can run without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Need {
    /// memstock does not run without it.
    Required,
    /// memstock uses it where it is present.
    Optional,
}

impl Need {
    /// As printed.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Something that a host can have, and memstock needs or can use.
#[derive(Clone, Debug)]
pub struct Facility {
    /// Its name, in lower case.
    pub name: String,
    /// Whether memstock can run without it.
    pub need: Need,
    /// What memstock does with it.
    pub purpose: &'static str,
    /// What is lost if it is absent.
    pub without: &'static str,
    /// The one command, or kernel setting, that provides it.
    pub remedy: &'static str,
    /// How to look for it.
    pub probe: Probe,
}

const NOT_AT_ALL: &str = "memstock does not run";
const OTHER_KERNEL: &str = "boot a kernel of 5.19 or newer with CONFIG_BPF_SYSCALL=y";
const SUDO: &str = "sudo memstock …, outside of containers";

macro_rules! facilities {
    ($($need:ident $name:literal: $probe:expr, $purpose:expr, $without:expr, $remedy:expr;)+) => {
        vec![$(Facility {
            name: $name.into(),
            need: Need::$need,
            purpose: $purpose,
            without: $without,
            remedy: $remedy,
            probe: $probe,
        },)+]
    };
}

/// All of them, in the order in which they are shown.
pub fn facilities() -> Vec<Facility> {
    let mut all = ourselves();
    all.extend(kernel());
    all.extend(tracepoints());
    all.extend(mounts());
    all.extend(files_and_calls());
    all
}

fn ourselves() -> Vec<Facility> {
    use Probe::Capability;
    facilities! {
        Required "root on the host": Probe::Privilege, "loading programs, mounting, reading page frame numbers (CAP_SYS_ADMIN, which includes CAP_BPF and CAP_PERFMON, in the first user namespace)", NOT_AT_ALL, SUDO;
        Required "cap_dac_read_search": Capability(CapabilitySet::DAC_READ_SEARCH), "opening a cgroup by its id", "cgroups have no names, and new ones are not tracked", SUDO;
        Optional "cap_sys_ptrace": Capability(CapabilitySet::SYS_PTRACE), "reading what other users' tasks have mapped", "what such tasks already hold is not adopted, and their memory not reclaimed", SUDO;
        Optional "cap_kill": Capability(CapabilitySet::KILL), "killing at a limit", "other users' tasks are not killed at a limit", SUDO;
        Optional "cap_ipc_lock": Capability(CapabilitySet::IPC_LOCK), "keeping the daemon in RAM", "the daemon can be swapped out when memory is short", SUDO;
        Optional "cap_sys_resource": Capability(CapabilitySet::SYS_RESOURCE), "sparing the daemon from the OOM killer", "the daemon can be killed when memory is short", SUDO;
        Optional "cap_sys_nice": Capability(CapabilitySet::SYS_NICE), "real-time priority for the enforcer, and process_madvise", "limits are enforced late on a busy host, and pages of tasks are not reclaimed", SUDO;
    }
}

fn kernel() -> Vec<Facility> {
    use Probe::Of;
    facilities! {
        Required "bpf": Of(bpf::bpf), "programs and maps, by bpf(2)", NOT_AT_ALL, OTHER_KERNEL;
        Required "btf": Of(bpf::btf), "the layout of the kernel's structures, from /sys/kernel/btf/vmlinux", NOT_AT_ALL, "boot a kernel with CONFIG_DEBUG_INFO_BTF=y";
        Required "struct pages": Of(bpf::struct_pages), "computing a page's frame number from its address: one array of struct page", NOT_AT_ALL, "boot a kernel with CONFIG_SPARSEMEM_VMEMMAP=y and CONFIG_PROC_PAGE_MONITOR=y";
        Required "programs": Of(bpf::programs), "loading all programs of an engine; they are not attached", NOT_AT_ALL, "boot a kernel of 5.19 or newer; on one, report the output of \"memstock doctor --json\"";
        Optional "no lockdown": Of(bpf::lockdown), "reading kernel memory in programs", "in confidentiality mode the kernel refuses the programs", "boot with lockdown=integrity, or without lockdown=";
        Optional "jit": Of(bpf::jit), "speed", "programs are interpreted, and several times slower", "sysctl net.core.bpf_jit_enable=1";
    }
}

/// For each required tracepoint.
const CHARGING: Without = Without {
    purpose: "charging pages and following cgroups",
    lost: NOT_AT_ALL,
    remedy: "boot a kernel with CONFIG_TRACEPOINTS=y and CONFIG_CGROUPS=y",
};

/// The tracepoints and the function that the engine attaches its programs to.
fn tracepoints() -> Vec<Facility> {
    let attached = ATTACHMENTS.into_iter().map(|Attachment { tracepoint, without, .. }| {
        let (need, Without { purpose, lost, remedy }) = match without {
            Some(without) => (Need::Optional, without),
            None => (Need::Required, CHARGING),
        };
        let name = format!("tracepoint {tracepoint}");
        Facility {
            name,
            need,
            purpose,
            without: lost,
            remedy,
            probe: Probe::Tracepoint(tracepoint),
        }
    });
    let migration = Facility {
        name: "function mem_cgroup_migrate".into(),
        need: Need::Optional,
        purpose: "keeping pages charged that compaction and NUMA balancing move; a probe is attached to it",
        without: "moved pages are charged to nobody until \"memstock audit --repair\"",
        remedy: "boot a kernel with CONFIG_MEMCG=y and CONFIG_FUNCTION_TRACER=y, on arm64 6.4 or newer",
        probe: Probe::Of(bpf::migration),
    };
    attached.chain([migration]).collect()
}

fn mounts() -> Vec<Facility> {
    use Probe::Of;
    facilities! {
        Required "procfs": Of(system::procfs), "reading what the kernel says about tasks and pages", NOT_AT_ALL, "mount -t proc proc /proc";
        Required "bpffs folder": Of(system::bpffs_folder), "where bpffs is mounted: /sys/fs/bpf", NOT_AT_ALL, "mount -t sysfs sysfs /sys";
        Optional "bpffs": Of(system::bpffs), "keeping an engine when its daemon dies", "\"memstock run\" mounts it, and unmounts it when it ends", "mount -t bpf bpf /sys/fs/bpf";
        Required "cgroup v2": Of(system::cgroup2), "naming cgroups", NOT_AT_ALL, "mount -t cgroup2 none /mnt";
        Optional "memory controller of cgroup v2": Of(system::cgroup2_memory), "comparing with the kernel, adopting what it charges, and using its reclaim", "only what tasks have mapped is adopted, and there is nothing to compare with", "boot with systemd.unified_cgroup_hierarchy=1 and without cgroup_disable=memory";
        Optional "memory controller of cgroup v1": Of(system::cgroup1_memory), "the same for the v1 cgroup with the same path and the same tasks: what it holds is adopted and audited", "--kernel-cgroup has nothing to name", "mount -t cgroup -o memory none /mnt";
        Required "run folder": Of(system::run_folder), "the lock and the event stream: /run", NOT_AT_ALL, "mount -t tmpfs tmpfs /run";
        Required "no engine of another version": Of(system::no_other_version), "starting without charging each page twice", "\"memstock run\" refuses to start", "memstock stop";
    }
}

fn files_and_calls() -> Vec<Facility> {
    use Probe::Of;
    const PAGE_MONITOR: &str = "boot a kernel with CONFIG_PROC_PAGE_MONITOR=y";
    facilities! {
        Required "zoneinfo": Of(system::zoneinfo), "how many page frames there are, from /proc/zoneinfo", NOT_AT_ALL, "mount -t proc proc /proc";
        Optional "kpageflags": Of(system::kpageflags), "adopting what tasks hold, and audits", "\"memstock run\" needs --no-adopt, and there are no audits", PAGE_MONITOR;
        Optional "kpagecgroup": Of(system::kpagecgroup), "comparing each page with the kernel", "\"memstock audit\" cannot compare with the kernel", "boot a kernel with CONFIG_MEMCG=y";
        Optional "swap": Of(system::swap), "limits of memory and swap together", "memory and swap together are just memory", "swapon -a";
        Required "cpu lists": Of(system::cpus), "the list of possible CPUs", NOT_AT_ALL, "mount -t sysfs sysfs /sys";
        Optional "memlock limit": Of(system::memlock), "keeping all of the daemon in RAM", "what the daemon maps later can be swapped out", "ulimit -l unlimited";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_is_declared_once_and_whole() {
        let all = facilities();
        let names: BTreeSet<_> = all.iter().map(|facility| &facility.name).collect();
        assert_eq!(names.len(), all.len());
        for facility in &all {
            let Facility { name, need: _, purpose, without, remedy, probe: _ } = facility;
            for text in [name.as_str(), purpose, without, remedy] {
                assert!(!text.is_empty() && !text.ends_with('.') && !text.contains('|'), "{text}");
            }
        }
    }
}
