//! Interrupts that CPUs send each other.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};

/// Rows have other names on other architectures, but these descriptions.
const KINDS: [&str; 3] = ["Rescheduling interrupts", "Function call interrupts", "TLB shootdowns"];

/// How many each online CPU was sent so far: to look for tasks, to run a function, to forget mappings.
///
/// # Errors
/// `/proc/interrupts` cannot be read, or does not count them.
pub fn received() -> Result<BTreeMap<u32, u64>> {
    let text = fs::read_to_string("/proc/interrupts").context("cannot read /proc/interrupts")?;
    let (head, rows) = text.split_once('\n').context("/proc/interrupts has no rows")?;
    let cpus = head.split_whitespace().map(|cpu| cpu.strip_prefix("CPU")?.parse().ok());
    let cpus: Vec<u32> = cpus.collect::<Option<_>>().context("/proc/interrupts has no CPUs")?;
    let mut counts = BTreeMap::new();
    for row in rows.lines().filter(|row| KINDS.iter().any(|kind| row.ends_with(kind))) {
        for (&cpu, count) in cpus.iter().zip(row.split_whitespace().skip(1)) {
            *counts.entry(cpu).or_default() += count.parse::<u64>().unwrap_or(0);
        }
    }
    ensure!(!counts.is_empty(), "there are no such rows in /proc/interrupts");
    Ok(counts)
}
