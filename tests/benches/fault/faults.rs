//! What the fault program costs at real page faults, by the kernel's run-time statistics.
//!
//! In turns: a stock hit (batch 1024), a shared counter on each page, a fault of an untracked cgroup, and the
//! empty program, which is what any program on the tracepoint costs, the statistic itself included. The
//! probes of allocations and frees are attached with the fault program: they take the page that it left
//! pending, and give it back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use memstock::bench::slices::{Stop, interleave, pairs};
use memstock::bench::statistics::{difference, values};
use memstock::engine::load::{Coalescing, Loaded, PROBE, Settings, YARDSTICK};
use memstock::engine::program::RunStats;
use memstock_common::NO_LIMIT;
use memstock_tests::workload::pages::round;

use crate::calls::{Home, engine};

/// Pages that are mapped, touched and unmapped at a time.
const PAGES: usize = 512;
/// What is attached beside the fault program.
const BESIDE: [(&str, &str); 2] = [("page_alloc", "mm_page_alloc"), ("page_free", "mm_page_free")];

/// Measures and prints.
pub fn measure(rounds: usize, slice: Duration, home: &Home) -> Result<()> {
    let own = home.chain.last().context("the top is there")?.id;
    let variant = |settings, track: bool| -> Result<Loaded> {
        let loaded = engine(settings)?;
        if track {
            loaded.engine.register(own, None, NO_LIMIT, NO_LIMIT)?;
        }
        Ok(loaded)
    };
    let each = Settings { coalescing: Coalescing::Nothing, ..Settings::default() };
    let mut variants = [
        ("empty program, again", variant(Settings::default(), false)?, YARDSTICK),
        ("hit", variant(Settings { batch: 1024, ..Settings::default() }, true)?, PROBE),
        ("untracked", variant(Settings::default(), false)?, PROBE),
        ("shared counter each", variant(each, true)?, PROBE),
    ];
    let _stats = aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .context("cannot enable run-time statistics")?;
    let seen = interleave(rounds, variants.len(), &Stop::default(), |n| {
        let (_, loaded, program) = &mut variants[n.unwrap_or(0)];
        one_slice(loaded, program, slice)
    })?;
    println!(
        "\nby real faults, one CPU: ns a run of the fault program by the kernel's statistic, and above the \
         empty program;\n{rounds} slices of {slice:?} each; medians with 95 % intervals"
    );
    for ((name, ..), slices) in variants.iter().zip(&seen) {
        let pairs = pairs(slices, |run| run.run_time_ns as f64 / run.run_cnt as f64);
        let faults: u64 = slices.iter().map(|paired| paired.value.run_cnt).sum();
        println!(
            "{name:<40} {:>24} {:>24} {faults:>10} faults",
            values(&pairs).to_string(),
            difference(&pairs).to_string()
        );
    }
    Ok(())
}

/// Attaches the program, faults for a while, detaches, and returns what it ran.
fn one_slice(loaded: &mut Loaded, program: &str, slice: Duration) -> Result<RunStats> {
    let beside = if program == PROBE { &BESIDE[..] } else { &[] };
    let links = beside
        .iter()
        .map(|&(name, point)| Ok((name, loaded.program(name)?.attach(point)?)))
        .collect::<Result<Vec<_>>>()?;
    let program = loaded.program(program)?;
    // Its maps and the faulting code are warm before anything is counted.
    let id = program.attach("page_fault_user")?;
    round(PAGES)?;
    let before = RunStats::of(program.fd()?)?;
    let end = Instant::now() + slice;
    while Instant::now() < end {
        round(PAGES)?;
    }
    let run = RunStats::of(program.fd()?)?.since(before);
    program.detach(id)?;
    for (name, link) in links {
        loaded.program(name)?.detach(link)?;
    }
    Ok(run)
}
