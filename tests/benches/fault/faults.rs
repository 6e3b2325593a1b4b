//! What the programs of a page cost at real page faults, by the kernel's run-time statistics, on one busy CPU and on
//! all.
//!
//! In turns, between slices of the empty program, which is what any program costs, the statistic itself included: stocks
//! that always serve (batch 1024), as they are by default, a shared counter on each page, both with one level and
//! with several, and untracked tasks. The statistic is read around the program, so what a miss tail-calls is in it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use memstock::bench::slices::{Paired, Stop, interleave, pairs};
use memstock::bench::statistics::{Estimate, difference};
use memstock::bench::workers::Workers;
use memstock::engine::load::{Coalescing, Loaded, Settings};
use memstock::engine::object::{BASELINE, HOT_TRACEPOINTS};
use memstock::engine::program::RunStats;
use memstock::host;
use memstock_common::DEFAULT_BATCH;
use memstock_tests::binaries;

use crate::calls::Home;
use crate::programs::{PAGE, tracking};
use crate::sequences::LEVELS;

/// Pages that are mapped, touched and unmapped at a time.
const PAGES: usize = 512;

/// Name, batch, what is coalesced, levels that are tracked, whether its programs are the empty one.
const VARIANTS: [(&str, u32, Coalescing, usize, bool); 7] = [
    ("empty program, again", DEFAULT_BATCH, Coalescing::Everything, 0, true),
    ("untracked", DEFAULT_BATCH, Coalescing::Everything, 0, false),
    ("hit", 1024, Coalescing::Everything, 1, false),
    ("stock", DEFAULT_BATCH, Coalescing::Everything, 1, false),
    ("stock, 4 levels", DEFAULT_BATCH, Coalescing::Everything, LEVELS, false),
    ("shared counter each", DEFAULT_BATCH, Coalescing::Nothing, 1, false),
    ("shared counter each, 4 levels", DEFAULT_BATCH, Coalescing::Nothing, LEVELS, false),
];
/// Which of them are compared: stocks, and what they save.
const RATIOS: [(&str, usize, usize); 2] =
    [("stock, by shared counter each", 3, 5), ("the same, 4 levels", 4, 6)];

/// What the programs took in a slice, ns.
#[derive(Clone, Copy)]
struct Took {
    /// A run of the fault program.
    fault: f64,
    /// All programs, for each fault.
    page: f64,
    faults: u64,
}

/// Measures and prints. Everything is loaded several times, since the place of a program counts.
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
            .map(|&(_, batch, coalescing, levels, _)| {
                tracking(Settings { batch, coalescing, ..Settings::default() }, home, levels)
            })
            .collect::<Result<Vec<_>>>()?;
        for (cpus, all) in cpus.iter().zip(&mut all) {
            let workers = Workers::start(&binaries::memstock()?, cpus, PAGES, &[dir])?;
            let seen = interleave(rounds, VARIANTS.len(), &Stop::default(), |n| {
                let n = n.unwrap_or(0);
                one_slice(&mut engines[n], VARIANTS[n].4, slice)
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
        // Slices of the same round.
        let [fault, page] = figures.map(|figure| {
            let both = above(ours, figure).into_iter().zip(above(theirs, figure));
            Estimate::of(&both.map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>()).digits(2)
        });
        println!("{name:<32} {fault:>24} {page:>24}");
    }
}

/// Attaches the programs, lets the workers fault for a while, detaches, and returns what ran.
fn one_slice(loaded: &mut Loaded, is_empty: bool, slice: Duration) -> Result<Took> {
    let ours = PAGE.map(|(name, _)| name);
    let programs = if is_empty { [BASELINE; PAGE.len()] } else { ours };
    let mut links = Vec::new();
    // The fault program last: it leaves pages pending for those who take them.
    for (name, point) in programs.into_iter().zip(HOT_TRACEPOINTS).rev() {
        links.push((name, loaded.program(name)?.attach(point)?));
    }
    // Its maps and the faulting code are warm before anything is counted.
    std::thread::sleep(slice / 5);
    let read = |loaded: &mut Loaded| -> Result<[RunStats; PAGE.len()]> {
        let [fault, alloc, free] = programs.map(|name| loaded.run_stats(name));
        Ok([fault?, alloc?, free?])
    };
    let before = read(loaded)?;
    std::thread::sleep(slice);
    let after = read(loaded)?;
    for (name, link) in links {
        loaded.program(name)?.detach(link)?;
    }
    let [fault, alloc, free] = [0, 1, 2].map(|n| after[n].since(before[n]));
    // The empty program was read three times.
    let (times, faults) = if is_empty { (1, fault.run_cnt / 3) } else { (3, fault.run_cnt) };
    let page_ns: u64 = [fault, alloc, free].iter().take(times).map(|run| run.run_time_ns).sum();
    Ok(Took {
        fault: fault.run_time_ns as f64 / fault.run_cnt as f64,
        page: page_ns as f64 / faults as f64,
        faults,
    })
}
