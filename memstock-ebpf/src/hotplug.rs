//! The probe that drains a CPU that goes offline, whether the user half is running or not.
//!
//! Kernel prototype (`cpuhp:cpuhp_exit`, `include/trace/events/cpuhp.h`): `(unsigned int cpu, int state, int idx, int
//! ret)`, after each step that takes a CPU up or down, on the CPU that ran the step. The state numbers differ between
//! kernels, so they are not read.

use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use memstock_common::drain;

use crate::machine::Kernel;

/// Drains the CPU that is going down or coming up.
#[raw_tracepoint(tracepoint = "cpuhp_exit")]
#[inline(always)]
pub fn cpu_hotplug(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the helper has no preconditions.
    let here = unsafe { bpf_get_smp_processor_id() };
    drain::cpu_hotplug(&Kernel, ctx.arg(0), here);
    0
}
