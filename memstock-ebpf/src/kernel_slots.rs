//! What the kernel's own memory controller has stocked on one CPU: for whom, and how much. Only reads the kernel's
//! structures. Loaded separately, for `memstock kernel`, and never attached: the user half runs it on the CPU in
//! question (`BPF_PROG_TEST_RUN`), where it is called from an interrupt. The kernel changes its stocks with interrupts
//! off, so they do not change meanwhile, and no cgroup cached in one can be freed.
//!
//! The kernel does not export the stocks' address. But per-CPU variables have the same distance from each other on
//! every CPU, and the running task leads to one of them, `runqueues`.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_smp_processor_id};
use memstock_common::Word;
use memstock_common::control::{Answer, Refusal};
use memstock_common::layout::{KernelSlots, MAX_KERNEL_SLOTS};

use crate::cgroup::{hierarchy_of, id_of};
use crate::config;
use crate::folio::{read, read_int};
use crate::maps::KERNEL_SLOTS;

/// Reads the stocks and returns the CPU; refuses if the structures are not as expected.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/page_fault_user")]
pub fn kernel_slots(_ctx: *mut c_void) -> u32 {
    Answer::new(look().ok_or(Refusal::Missing)).0
}

#[inline(always)]
fn look() -> Option<u32> {
    let layout = config::kernel_stocks();
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let rq = read(read(task, layout.task_cfs_rq)?, layout.cfs_rq_rq)?;
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if read_int(rq, layout.rq_cpu)? != cpu {
        return None;
    }
    slots(rq, layout.pages, 0, Some)?;
    slots(rq, layout.bytes, MAX_KERNEL_SLOTS, |objcg| read(objcg, layout.objcg_memcg))?;
    Some(cpu)
}

#[inline(always)]
fn slots(
    rq: u64,
    slots: KernelSlots,
    first: u32,
    memcg_of: impl Fn(u64) -> Option<u64>,
) -> Option<()> {
    let layout = config::kernel_stocks();
    let stock = rq.wrapping_add(slots.from_rq);
    for n in 0..MAX_KERNEL_SLOTS {
        let (mut cgroup_id, mut left) = (0, 0);
        if n < slots.nr_slots {
            let cached = read(stock, slots.cached + n * size_of::<u64>() as u32)?;
            if cached != 0 {
                left = read(stock, slots.left + n * slots.left_size)? & slots.mask();
                let cgroup = read(memcg_of(cached)?, layout.memcg_cgroup)?;
                if hierarchy_of(cgroup)? != layout.hierarchy as i32 {
                    return None;
                }
                cgroup_id = id_of(cgroup)?;
            }
        }
        let seen = KERNEL_SLOTS.get(first + n)?;
        seen.cgroup_id.store(cgroup_id);
        seen.left.store(left);
    }
    Some(())
}
