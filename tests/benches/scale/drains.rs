//! The time of drains, and the interrupts that they cause on other CPUs.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::programs::{RawTracePointRunOptions, TestRun as _};
use memstock::engine::load::Settings;
use memstock::host;
use memstock_common::NO_INDEX;
use memstock_tests::bench::statistics::Estimate;
use memstock_tests::workload::cpus::on;

use crate::Effort;
use crate::calls::{END, Home, busy};
use crate::programs::{Programs, tracking};

/// Rows of `/proc/interrupts` for inter-processor interrupts (x86).
const INTERRUPTS: [&str; 3] = ["RES", "CAL", "TLB"];

/// Measures and prints.
pub fn measure(effort: &Effort, home: &Home) -> Result<()> {
    let online = host::cpus()?.online;
    println!("\na drain, us, with the stocks being filled on all CPUs but the one that drains");
    for &slots in effort.slots {
        let mut loaded = tracking(Settings { slots, ..Settings::default() }, home, 1)?;
        let info = loaded.engine.info();
        let programs = Programs::of(&mut loaded)?;
        let (page, current) = (&[programs.sequence()], &AtomicUsize::new(0));
        let pages = (info.page_base, info.page_struct_size);
        std::thread::scope(|scope| -> Result<()> {
            let others = online
                .iter()
                .skip(1)
                .map(|&cpu| scope.spawn(move || busy(page, pages, cpu, current)));
            let others: Vec<_> = others.collect();
            let measured = on(online[0], || {
                for cpus in powers_of_two(online.len()).map(|nr| &online[..nr]) {
                    let mut took = Vec::new();
                    for _ in 0..effort.rounds {
                        took.push(drain(&loaded.engine, cpus, slots, 50)?);
                    }
                    let name = format!("{} CPU(s), {slots} slot(s)", cpus.len());
                    println!("{name:<44} {:>24}", Estimate::of(&took).digits(2));
                }
                if slots != effort.slots[0] || online.len() == 1 {
                    return Ok(());
                }
                let before = interrupts()?;
                let start = Instant::now();
                drain(&loaded.engine, &online, slots, effort.drains)?;
                let drains = start.elapsed();
                let after = interrupts()?;
                // The control: as long without drains.
                let end = Instant::now() + drains;
                while Instant::now() < end {
                    programs
                        .empty
                        .test_run(RawTracePointRunOptions { args: [0; 12], cpu: None })?;
                }
                report(effort.drains, drains, &before, &after, &interrupts()?);
                Ok(())
            });
            current.store(END, SeqCst);
            for other in others {
                other.join().map_err(|_| anyhow::anyhow!("a busy thread has died"))??;
            }
            measured
        })?;
    }
    Ok(())
}

/// The powers of two below `most`, and `most`.
fn powers_of_two(most: usize) -> impl Iterator<Item = usize> {
    let below = (0..usize::BITS).map(|n| 1 << n).take_while(move |nr| *nr < most);
    below.chain([most])
}

/// Drains these CPUs `times` times. Returns the time of one drain, us.
fn drain(engine: &memstock::engine::Engine, cpus: &[u32], slots: u32, times: u32) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..times {
        for &cpu in cpus {
            for slot in 0..slots {
                engine.control().drain(cpu, slot, NO_INDEX)?;
            }
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(times))
}

fn report(drains: u32, took: Duration, before: &[u64], after: &[u64], control: &[u64]) {
    println!(
        "\ninterrupts of all CPUs in {drains} drains of all CPUs, and in as long ({took:.0?}) without:"
    );
    for (n, name) in INTERRUPTS.iter().enumerate() {
        println!("{name}: {} and {}", after[n] - before[n], control[n] - after[n]);
    }
}

/// The counts of [`INTERRUPTS`] over all CPUs; 0 if the kernel has no such row.
fn interrupts() -> Result<Vec<u64>> {
    let text = fs::read_to_string("/proc/interrupts").context("cannot read /proc/interrupts")?;
    let of = |name: &&str| -> u64 {
        let row = text.lines().find_map(|line| line.trim().strip_prefix(*name)?.strip_prefix(':'));
        row.unwrap_or_default().split_whitespace().map_while(|n| n.parse::<u64>().ok()).sum()
    };
    Ok(INTERRUPTS.iter().map(of).collect())
}
