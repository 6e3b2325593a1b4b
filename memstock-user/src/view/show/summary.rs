//! The closing lines of a run: what was charged, and how often the shared counters were used.

use std::io::{self, Write};

use memstock_common::stat::CpuStat;

use crate::model::Sample;
use crate::model::ratio::{hit_rate, operations_per_page};
use crate::view::show::table::number;

/// Writes the summary.
///
/// # Errors
/// `out` cannot be written.
pub fn write(out: &mut dyn Write, sample: &Sample) -> io::Result<()> {
    let [faults, charged, from_stock] =
        [CpuStat::Faults, CpuStat::Charged, CpuStat::FromStock].map(|stat| sample.all_cpus(stat));
    let operations: Option<u64> = [CpuStat::Charges, CpuStat::Uncharges, CpuStat::Drains]
        .into_iter()
        .map(|stat| sample.all_cpus(stat))
        .sum();
    let of_charged = |part: Option<u64>, ratio: fn(f64, f64) -> Option<f64>| {
        part.zip(charged).and_then(|(part, charged)| ratio(part as f64, charged as f64))
    };
    let rate = of_charged(from_stock, hit_rate);
    let per_page = of_charged(operations, operations_per_page);
    let note = |text: Option<String>| text.map_or(String::new(), |text| format!(" ({text})"));
    let [faults, charged, operations] = [faults, charged, operations].map(number);
    let rate = note(rate.map(|rate| format!("{rate:.2} % from a stock")));
    let per_page = note(per_page.map(|ratio| format!("{ratio:.3} for each page charged")));
    writeln!(out, "page faults                {faults}")?;
    writeln!(out, "pages charged              {charged}{rate}")?;
    writeln!(out, "shared-counter operations  {operations}{per_page}")
}
