//! The BPF object: the names of its programs, what each is attached to, and which are pinned. Loads nothing.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::programs::{Program, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf, include_bytes_aligned};

/// The BPF object, built by this crate's build script.
pub(crate) static OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memstock-probes"));

/// The compiler that made it.
pub const COMPILER: &str = env!("MEMSTOCK_BPF_RUSTC");

/// The probe of the page-fault tracepoints.
pub const PROBE: &str = "fault";
/// Counts the pages that are migrated, on kernels where it is unknown which.
pub(super) const MOVED_UNSEEN: &str = "moved_unseen";

/// A program and a tracepoint that it is attached to.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// The program.
    pub program: &'static str,
    /// The tracepoint.
    pub tracepoint: &'static str,
    /// What is lost on a kernel without it; none if memstock needs it.
    pub without: Option<Without>,
}

/// A tracepoint that a kernel may lack.
#[derive(Clone, Copy, Debug)]
pub struct Without {
    /// Its purpose.
    pub purpose: &'static str,
    /// What is lost.
    pub lost: &'static str,
    /// Which kernel to boot.
    pub remedy: &'static str,
}

const fn required(program: &'static str, tracepoint: &'static str) -> Attachment {
    Attachment { program, tracepoint, without: None }
}

const fn optional(
    program: &'static str,
    tracepoint: &'static str,
    [purpose, lost, remedy]: [&'static str; 3],
) -> Attachment {
    Attachment { program, tracepoint, without: Some(Without { purpose, lost, remedy }) }
}

const RECLAIM: [&str; 3] = [
    "draining stocks",
    "stocks are not drained when reclaim of that kind begins",
    "boot a kernel with CONFIG_MEMCG=y",
];
const NOBODYS: &str = "they are charged to nobody, until \"memstock audit --repair\"";
const FAULTS: [&str; 3] =
    ["counting page faults", "page faults are not counted", "boot a kernel for x86 or riscv"];

/// All attachments, in the order in which they are attached: before the first fault, the probes must be there that
/// invalidate what CPUs remember of tasks and that uncharge pages.
pub const ATTACHMENTS: [Attachment; 17] = [
    // Before anything can be stocked.
    required("cpu_hotplug", "cpuhp_exit"),
    required("bump_generation", "task_newtask"),
    required("bump_generation", "cgroup_attach_task"),
    required("cgroup_made", "cgroup_mkdir"),
    required("cgroup_removed", "cgroup_rmdir"),
    required("page_free", "mm_page_free"),
    required("page_drain", "mm_page_pcpu_drain"),
    // Page cache must be marked from the first charged page on.
    required("file_added", "mm_filemap_add_to_page_cache"),
    required("page_alloc", "mm_page_alloc"),
    optional(PROBE, FAULT_TRACEPOINTS[0], FAULTS),
    optional(PROBE, FAULT_TRACEPOINTS[1], FAULTS),
    optional("reclaim_began", "mm_vmscan_direct_reclaim_begin", RECLAIM),
    optional("reclaim_began", "mm_vmscan_memcg_reclaim_begin", RECLAIM),
    optional("reclaim_began", "mm_vmscan_kswapd_wake", RECLAIM),
    optional(
        "collapsed",
        "mm_collapse_huge_page",
        [
            "huge pages that khugepaged puts together",
            NOBODYS,
            "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE=y",
        ],
    ),
    optional(
        "collapsed",
        "mm_khugepaged_collapse_file",
        [
            "those of files and shared memory",
            NOBODYS,
            "boot a kernel of 6.2 or newer with CONFIG_TRANSPARENT_HUGEPAGE=y",
        ],
    ),
    optional(
        MOVED_UNSEEN,
        "mm_migrate_pages",
        [
            "counting pages that are moved where mem_cgroup_migrate cannot be traced",
            "pages that are moved are not counted",
            "boot a kernel with CONFIG_MIGRATION=y",
        ],
    ),
];
/// The tracepoints of faults, which x86 and riscv have.
pub(super) const FAULT_TRACEPOINTS: [&str; 2] = ["page_fault_user", "page_fault_kernel"];

/// The programs that charge, and what they are attached to.
pub fn charging() -> impl Iterator<Item = (&'static str, &'static str)> {
    let charges = |it: &&Attachment| it.without.is_none() || it.program == PROBE;
    ATTACHMENTS.iter().filter(charges).map(|it| (it.program, it.tracepoint))
}

/// The first tracepoint of a program in the list; one with BTF is loaded for it.
pub(super) fn tracepoint_of(program: &str) -> Option<&'static str> {
    ATTACHMENTS.iter().find(|it| it.program == program).map(|it| it.tracepoint)
}

/// The types of the running kernel, by which it finds what some programs are attached to.
pub(super) fn kernel_btf() -> Result<Btf> {
    Btf::from_sys_fs().context("the kernel has no BTF (CONFIG_DEBUG_INFO_BTF)")
}

/// The programs that are attached to tracepoints; each once.
pub fn probes() -> impl Iterator<Item = &'static str> {
    ATTACHMENTS.iter().map(|it| it.program).collect::<BTreeSet<_>>().into_iter()
}

/// The program that `fault` tail-calls.
pub(super) const MISS: &str = "charge";
/// Finds out where the array of `struct page` begins; loaded by itself.
pub(super) const LEARN: &str = "learn";

/// Bytes of the event ring: about 3,000 events.
pub(super) const RING_BYTES: u32 = 256 * 1024;

/// The program that looks again, the one it looks after, and the tracepoint of both.
pub const AGAIN: [(&str, &str, &str); 2] =
    [("free_again", "page_free", "mm_page_free"), ("alloc_again", "page_alloc", "mm_page_alloc")];

/// The program that follows migrated pages, and the function it is attached to.
pub(super) const MIGRATED: (&str, &str) = ("migrated", "mem_cgroup_migrate");

/// The programs that count the kernel's own charges, and the functions they are attached to; loaded by themselves.
pub(super) const KERNEL_CHARGES: [(&str, &str); 2] =
    [("kernel_charge", "try_charge_memcg"), ("kernel_shared", "page_counter_try_charge")];
/// Their map.
pub(super) const KERNEL_CHARGES_MAP: &str = "KERNEL_STOCK";

/// The program that reads the kernel's own stocks on the CPU it runs on; loaded by itself.
pub(super) const KERNEL_SLOTS: &str = "kernel_slots";
/// Its map.
pub(super) const KERNEL_SLOTS_MAP: &str = "KERNEL_SLOTS";

/// The programs that record accesses to page cache, and their tracepoints; loaded by themselves, like all below.
pub(super) const ACCESSES: [(&str, &str); 3] = [
    ("record_read", "mm_filemap_get_pages"),
    ("record_mapped", "mm_filemap_map_pages"),
    ("record_fault", "mm_filemap_fault"),
];
/// The programs that record changes of page cache, and processes that start and end.
pub(super) const CHANGES: [(&str, &str); 6] = [
    ("record_removed", "mm_filemap_delete_from_page_cache"),
    ("record_added", "mm_filemap_add_to_page_cache"),
    ("record_dirtied", "writeback_dirty_folio"),
    ("record_born", "sched_process_fork"),
    ("record_exec", "sched_process_exec"),
    ("record_died", "sched_process_exit"),
];
/// Their maps.
pub(super) const RECORD_MAPS: [&str; 3] = ["FOLLOWED", "RECENT", "RECORDED"];

/// The programs that record charges and uncharges, and their tracepoints.
pub(super) const CHARGES: [(&str, &str); 7] = [
    ("charged_hotplug", "cpuhp_exit"),
    ("charged_free", "mm_page_free"),
    ("charged_free", "mm_page_pcpu_drain"),
    ("charged_file", "mm_filemap_add_to_page_cache"),
    ("charged_alloc", "mm_page_alloc"),
    ("charged_fault", FAULT_TRACEPOINTS[0]),
    ("charged_fault", FAULT_TRACEPOINTS[1]),
];
/// Their page-owner map.
pub(super) const CHARGED_MAP: &str = "CHARGED";

/// An error for a refused program. The verifier's log can be megabytes: the message has its last lines, the debug log
/// all of it.
pub fn refused(name: &str, error: ProgramError) -> anyhow::Error {
    let message = format!("the kernel refuses the program {name}");
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow::Error::new(error).context(message);
    };
    let text = verifier_log.to_string();
    log::debug!("{text}");
    let last = reason(&text);
    let message = if last.is_empty() { message } else { format!("{message} ({last})") };
    anyhow::Error::new(io_error).context(message)
}

/// The last two lines of a verifier's log before the final statistics: where it stopped, and why.
fn reason(log: &str) -> String {
    const STATISTICS: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    let said = |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|it| line.starts_with(it));
    let last: Vec<_> = log.lines().rev().filter(said).take(2).collect();
    last.into_iter().rev().collect::<Vec<_>>().join("; ")
}

/// Whether a map is pinned. Maps such as `.rodata` cannot be, and need not be: the programs keep them.
pub(super) fn is_pinned_map(name: &str) -> bool {
    let others = [KERNEL_CHARGES_MAP, KERNEL_SLOTS_MAP, CHARGED_MAP];
    !name.starts_with('.') && RECORD_MAPS.into_iter().chain(others).all(|other| name != other)
}

/// Whether a program is loaded with the engine.
pub(super) fn is_engines(name: &str) -> bool {
    let mut others = KERNEL_CHARGES.iter().chain(&ACCESSES).chain(&CHANGES).chain(&CHARGES);
    ![LEARN, KERNEL_SLOTS, MIGRATED.0].contains(&name) && others.all(|&(other, _)| name != other)
}

pub(super) fn is_pinned_program(name: &str) -> bool {
    is_engines(name) || name == MIGRATED.0
}

pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("no program {name} in the object"))
}

/// The same, if it is attached to tracepoints without BTF.
pub(super) fn raw<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut RawTracePoint> {
    Ok(program(ebpf, name)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use aya_obj::Object;

    use super::*;

    #[test]
    fn each_program_is_for_something() {
        let lists = KERNEL_CHARGES.iter().chain(&ACCESSES).chain(&CHANGES).chain(&CHARGES);
        let alone = [LEARN, MISS, MIGRATED.0, KERNEL_SLOTS];
        let again = AGAIN.iter().map(|it| it.0);
        let known: BTreeSet<_> =
            lists.map(|it| it.0).chain(alone).chain(again).chain(probes()).collect();
        let object = Object::parse(OBJECT).unwrap();
        for name in object.programs.keys() {
            let is_known = known.contains(name.as_str()) || name.starts_with("control_");
            assert!(is_known, "{name} is attached to nothing, and asked by nobody");
        }
    }

    #[test]
    fn the_reason_is_what_stands_before_the_statistics() {
        let log = "0: R1=ctx() R10=fp0\n5: (79) r1 = *(u64 *)(r1 +0)\nR1 invalid mem access 'scalar'\n\
            verification time 83 usec\nstack depth 8+0\n\
            processed 5 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n\n";
        assert_eq!(reason(log), "5: (79) r1 = *(u64 *)(r1 +0); R1 invalid mem access 'scalar'");
        assert_eq!(reason(""), "");
    }
}
