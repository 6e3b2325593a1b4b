//! The closing lines of a run: what was charged, and what the stocks spared the shared counters.

use std::io::{self, Write};

use memstock_common::stat::CpuStat;

use crate::model::Sample;
use crate::model::ratio::{hit_rate, operations_per_page};

/// Operations on the shared counters: charges, uncharges and drains.
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
    let [faults, charged, from_stock] =
        [CpuStat::Faults, CpuStat::Charged, CpuStat::FromStock].map(|stat| sample.all_cpus(stat));
    let operations = shared_operations(sample);
    let rate = hit_rate(from_stock as f64, charged as f64);
    let per_page = operations_per_page(operations as f64, charged as f64);
    let note = |text: Option<String>| text.map_or(String::new(), |text| format!(" ({text})"));
    let rate = note(rate.map(|rate| format!("{rate:.2} % from a stock")));
    let per_page = note(per_page.map(|ratio| format!("{ratio:.3} for each page charged")));
    writeln!(out, "page faults                {faults}")?;
    writeln!(out, "pages charged              {charged}{rate}")?;
    writeln!(out, "shared-counter operations  {operations}{per_page}")
}
