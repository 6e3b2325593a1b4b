//! The BPF object: its programs by their names, what each is attached to, and which are pinned. Loads nothing.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramError, RawTracePoint};
use aya::{Ebpf, include_bytes_aligned};

/// The BPF object, built by this crate's build script.
pub(crate) static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memstock-probes"));

/// The compiler that made it.
pub const COMPILER: &str = env!("MEMSTOCK_BPF_RUSTC");

/// The probe of the page-fault tracepoints.
pub const PROBE: &str = "fault";
/// Programs and the tracepoints they are attached to, in this order: what a CPU remembers of a task
/// must be made stale from before the first fault on, and what is charged be uncharged.
pub const ATTACHMENTS: [(&str, &str); 11] = [
    // Before anything can be stocked.
    ("cpu_hotplug", "cpuhp_exit"),
    ("bump_generation", "task_newtask"),
    ("bump_generation", "cgroup_attach_task"),
    ("cgroup_made", "cgroup_mkdir"),
    ("cgroup_removed", "cgroup_rmdir"),
    ("page_free", "mm_page_free"),
    ("page_drain", "mm_page_pcpu_drain"),
    // What is page cache must be known from the first page that is charged on.
    ("file_added", "mm_filemap_add_to_page_cache"),
    ("page_alloc", "mm_page_alloc"),
    (PROBE, FAULT_TRACEPOINTS[0]),
    (PROBE, FAULT_TRACEPOINTS[1]),
];
/// Those of faults, which x86 and riscv have.
pub(super) const FAULT_TRACEPOINTS: [&str; 2] = ["page_fault_user", "page_fault_kernel"];
/// The same where the kernel has the tracepoint: without them, less is drained than could be.
pub const OPTIONAL: [(&str, &str); 3] = [
    ("reclaim_began", "mm_vmscan_direct_reclaim_begin"),
    // With CONFIG_MEMCG only.
    ("reclaim_began", "mm_vmscan_memcg_reclaim_begin"),
    ("reclaim_began", "mm_vmscan_kswapd_wake"),
];

/// Those of collapses, of which the kernel may have none or one: without them, the huge pages are nobody's.
pub const COLLAPSES: [(&str, &str); 2] = [
    // With CONFIG_TRANSPARENT_HUGEPAGE only.
    ("collapsed", "mm_collapse_huge_page"),
    ("collapsed", "mm_khugepaged_collapse_file"),
];

/// What counts the pages that are moved, where it cannot be seen which.
pub const MOVED_UNSEEN: (&str, &str) = ("moved_unseen", "mm_migrate_pages");

/// The programs that are attached to tracepoints; each once.
pub fn probes() -> impl Iterator<Item = &'static str> {
    let attached = ATTACHMENTS.iter().chain(&OPTIONAL).chain(&COLLAPSES).chain([&MOVED_UNSEEN]);
    attached.map(|&(name, _)| name).collect::<BTreeSet<_>>().into_iter()
}

/// The program that `fault` tail-calls.
pub(super) const MISS: &str = "charge";
/// What finds out where the kernel keeps what a fault needs; loaded by itself.
pub(super) const LEARN: &str = "learn";

/// Bytes of the event ring: some 3,000 events.
pub(super) const RING_BYTES: u32 = 256 * 1024;

/// What sees pages that are moved, and the function that it is attached to.
pub(super) const MIGRATED: (&str, &str) = ("migrated", "mem_cgroup_migrate");

/// What counts the kernel's own charges, and the functions that they are attached to; loaded by themselves.
pub(super) const KERNEL_CHARGES: [(&str, &str); 2] =
    [("kernel_charge", "try_charge_memcg"), ("kernel_shared", "page_counter_try_charge")];
/// Their map.
pub(super) const KERNEL_CHARGES_MAP: &str = "KERNEL_STOCK";

/// The verifier's log can be megabytes: the message has its last words, the debug log all of it.
pub fn refused(name: &str, error: ProgramError) -> anyhow::Error {
    let message = format!("the kernel refuses the program {name}");
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow::Error::new(error).context(message);
    };
    let text = verifier_log.to_string();
    log::debug!("{text}");
    let said = |line: &&str| !line.is_empty() && !line.starts_with("processed ");
    let last: Vec<_> = text.lines().rev().filter(said).take(2).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("; ");
    let message = if last.is_empty() { message } else { format!("{message} ({last})") };
    anyhow::Error::new(io_error).context(message)
}

/// Names such as `.rodata` cannot be pinned, and need not be: the programs hold them.
pub(super) fn is_pinned_map(name: &str) -> bool {
    !name.starts_with('.') && name != KERNEL_CHARGES_MAP
}

/// Whether a program is loaded with the others.
pub(super) fn is_engines(name: &str) -> bool {
    name != LEARN && name != MIGRATED.0 && KERNEL_CHARGES.iter().all(|&(other, _)| name != other)
}

pub(super) fn is_pinned_program(name: &str) -> bool {
    is_engines(name) || name == MIGRATED.0
}

pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut RawTracePoint> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name} in the object"))?
        .try_into()?)
}
