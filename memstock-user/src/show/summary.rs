//! The closing lines of a run: what was charged, and what the stocks saved.

use std::io::{self, Write};

use memstock_common::stat::{CgroupStat, CpuStat};

use crate::model::Sample;

/// Operations on the shared counters: charges, uncharges and drains. Without stocks each page would be
/// a charge, and later an uncharge.
pub fn shared_operations(sample: &Sample) -> u64 {
    [CpuStat::Charges, CpuStat::Uncharges, CpuStat::Drains]
        .into_iter()
        .map(|stat| sample.all_cpus(stat))
        .sum()
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
