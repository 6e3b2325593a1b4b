//! The closing lines of a run: what was charged, and what the stocks saved.

use std::io::{self, Write};

use memstock_common::stat::{CgroupStat, CpuStat};

use crate::model::Sample;

/// Operations on the shared counters of the faulting cgroups' level: one for each batch or page
/// tried, forced or given back. Without stocks each fault would be one.
pub fn shared_operations(sample: &Sample) -> u64 {
    sample.all_cgroups(CgroupStat::Misses)
        + sample.all_cgroups(CgroupStat::Singles)
        + 2 * sample.all_cgroups(CgroupStat::Forced)
        + sample.all_cpus(CpuStat::Drains)
}

/// Writes the summary.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, sample: &Sample) -> io::Result<()> {
    let faults = sample.all_cgroups(CgroupStat::Faults);
    let hits = sample.all_cgroups(CgroupStat::Hits);
    let operations = shared_operations(sample);
    // At a limit each fault can take several operations: then less than nothing is saved.
    let percent = |part: f64| if faults == 0 { 0.0 } else { 100.0 * part / faults as f64 };
    writeln!(out, "faults charged             {faults}")?;
    writeln!(out, "hit rate                   {:.2} %", percent(hits as f64))?;
    writeln!(
        out,
        "shared-counter operations  {operations} instead of {faults} ({:.2} % saved)",
        percent(faults as f64 - operations as f64)
    )
}
