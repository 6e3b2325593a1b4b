//! The cost of a page's programs at real page faults, by the kernel's run-time statistics, on one busy CPU and on all.
//!
//! Variants run in turns, between slices of the empty program, which measures what any program and the statistics
//! themselves cost: stocks that always hit (batch 1024), default stocks and a shared counter on each page, the latter
//! two with one level and with several, and untracked tasks. The statistics include what a miss tail-calls.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::RawTracePoint;
use memstock::engine::load::{Coalescing, Settings};
use memstock::host;
use memstock_common::DEFAULT_BATCH;
use memstock_tests::bench::HOT_TRACEPOINTS;
use memstock_tests::bench::run_stats::RunStats;
use memstock_tests::bench::slices::{Paired, interleave, pairs};
use memstock_tests::bench::statistics::{Estimate, difference};
use memstock_tests::bench::workers::Workers;

use crate::calls::Home;
use crate::loaded::empty;
use crate::programs::{PAGE, Programs, tracking};
use crate::sequences::LEVELS;

/// Pages mapped, touched and unmapped at a time.
const PAGES: usize = 512;

/// Name, batch, what is coalesced, tracked levels, and whether its programs are the empty one.
const VARIANTS: [(&str, u32, Coalescing, usize, bool); 7] = [
    ("empty program, again", DEFAULT_BATCH, Coalescing::Everything, 0, true),
    ("untracked", DEFAULT_BATCH, Coalescing::Everything, 0, false),
    ("hit", 1024, Coalescing::Everything, 1, false),
    ("stock", DEFAULT_BATCH, Coalescing::Everything, 1, false),
    ("stock, 4 levels", DEFAULT_BATCH, Coalescing::Everything, LEVELS, false),
    ("shared counter each", DEFAULT_BATCH, Coalescing::Nothing, 1, false),
    ("shared counter each, 4 levels", DEFAULT_BATCH, Coalescing::Nothing, LEVELS, false),
];
/// Ratios to report: what stocks save.
const RATIOS: [(&str, usize, usize); 2] =
    [("stock, by shared counter each", 3, 5), ("the same, 4 levels", 4, 6)];

/// What the programs took in a slice, ns.
#[derive(Clone, Copy)]
struct Took {
    /// Time of one run of the fault program.
    fault: f64,
    /// Time of all programs per fault.
    page: f64,
    faults: u64,
}

/// Measures and prints. Loads everything several times, since a program's speed depends on its address.
pub fn measure((loads, rounds): (usize, usize), slice: Duration, home: &Home) -> Result<()> {
    let _stats = aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .context("cannot enable run-time statistics")?;
    let online = host::cpus()?.online;
    let mut cpus = vec![&online[..1], &online[..]];
    cpus.dedup();
    let dir = &home.chain.last().context("the top is there")?.dir;
    let mut all: Vec<Vec<Vec<Paired<Took>>>> = vec![vec![Vec::new(); VARIANTS.len()]; cpus.len()];
    for _ in 0..loads {
        let mut engines = VARIANTS
            .iter()
            .map(|&(_, batch, coalescing, levels, is_empty)| {
                let settings = Settings { batch, coalescing, ..Settings::default() };
                let mut loaded = tracking(settings, home, levels)?;
                let programs = match is_empty {
                    true => [empty()?, empty()?, empty()?],
                    false => Programs::of(&mut loaded)?.page,
                };
                // Keeps the engine: without it, a program's tail call would fail.
                Ok((loaded, programs))
            })
            .collect::<Result<Vec<_>>>()?;
        for (cpus, all) in cpus.iter().zip(&mut all) {
            let workers = Workers::start(cpus, PAGES, &[dir])?;
            let seen = interleave(rounds, VARIANTS.len(), |n| {
                one_slice(&mut engines[n.unwrap_or(0)].1, slice)
            })?;
            drop(workers);
            all.iter_mut().zip(seen).for_each(|(all, seen)| all.extend(seen));
        }
    }
    for (cpus, seen) in cpus.iter().zip(&all) {
        println!(
            "\n{} busy CPU(s), by real faults: ns above the empty program by the kernel's statistic, of the fault \
             program and\nof a page's three; loaded {loads} times, {rounds} slices of {slice:?} each; medians with \
             95 % intervals",
            cpus.len()
        );
        report(seen);
    }
    Ok(())
}

fn report(seen: &[Vec<Paired<Took>>]) {
    let figures: [fn(&Took) -> f64; 2] = [|took| took.fault, |took| took.page];
    let above = |n: usize, figure: fn(&Took) -> f64| -> Vec<f64> {
        pairs(&seen[n], figure).iter().map(|pair| pair.value - pair.control).collect()
    };
    for ((name, ..), slices) in VARIANTS.iter().zip(seen) {
        let [fault, page] = figures.map(|figure| difference(&pairs(slices, figure)).to_string());
        let faults: u64 = slices.iter().map(|paired| paired.value.faults).sum();
        println!("{name:<32} {fault:>24} {page:>24} {faults:>10} faults");
    }
    for (name, ours, theirs) in RATIOS {
        // Compares slices of the same round.
        let [fault, page] = figures.map(|figure| {
            let both = above(ours, figure).into_iter().zip(above(theirs, figure));
            Estimate::of(&both.map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>()).digits(2)
        });
        println!("{name:<32} {fault:>24} {page:>24}");
    }
}

/// Attaches the programs, lets the workers fault for a while, detaches, and returns what the programs took.
fn one_slice(programs: &mut [RawTracePoint; PAGE.len()], slice: Duration) -> Result<Took> {
    let mut links = Vec::new();
    // The fault program last, since it leaves pages pending that the others must claim.
    for (program, point) in programs.iter_mut().zip(HOT_TRACEPOINTS).rev() {
        links.push(program.attach(point)?);
    }
    // Warms the maps and the faulting code before it counts.
    std::thread::sleep(slice / 5);
    let read = |programs: &[RawTracePoint]| -> Result<Vec<RunStats>> {
        programs.iter().map(|program| RunStats::of(program.fd()?)).collect()
    };
    let before = read(programs)?;
    std::thread::sleep(slice);
    let after = read(programs)?;
    for (program, link) in programs.iter_mut().rev().zip(links) {
        program.detach(link)?;
    }
    let ran: Vec<_> = after.iter().zip(before).map(|(after, before)| after.since(before)).collect();
    let fault = ran[0];
    let page_ns: u64 = ran.iter().map(|run| run.run_time_ns).sum();
    Ok(Took {
        fault: fault.run_time_ns as f64 / fault.run_cnt as f64,
        page: page_ns as f64 / fault.run_cnt as f64,
        faults: fault.run_cnt,
    })
}
