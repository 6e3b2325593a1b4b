//! `cargo xtask bench page`: the cost of charging and uncharging for a task that does nothing but touch and unmap
//! pages, or with `--cache` nothing but read and drop pages of page cache.
//!
//! Workers do that with 1 MiB for ever, in one tracked cgroup. In turns, everything is attached, with or
//! without the fault program, or an empty program on each of the hot tracepoints, each between slices with nothing
//! attached. Further slices measure by the kernel's statistics how long each program runs. `cargo xtask bench table1`
//! has more variants.

#[path = "support/empty.rs"]
mod empty;
#[path = "support/loaded.rs"]
mod loaded;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::RawTracePoint;
use aya::programs::links::FdLink;
use clap::Parser;
use empty::attach_empty;
use memstock::engine::load::{Loaded, Settings};
use memstock::engine::object::{PROBE, charging};
use memstock::host;
use memstock::host::cgroup::{Cgroup, CgroupMount};
use memstock_common::NO_LIMIT;
use memstock_tests::bench::Common;
use memstock_tests::bench::run_stats::RunStats;
use memstock_tests::bench::slices::{interleave, pairs};
use memstock_tests::bench::statistics::{Estimate, difference, ratio, values};
use memstock_tests::bench::workers::Workers;
use memstock_tests::bench::{CACHE_TRACEPOINTS, HOT_TRACEPOINTS};
use memstock_tests::cgroup::OF_BENCH;

/// Measure the cost of the programs, and a task's loss of throughput.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every variant once
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Length of a slice in milliseconds
    #[arg(long, default_value = "50", value_name = "MS")]
    slice: u64,
    /// Read and drop page cache instead of mapping and unmapping memory
    #[arg(long)]
    cache: bool,
    /// Pages at a time
    #[arg(long, default_value_t = 256)]
    pages: usize,
    /// Pages in a batch
    #[arg(long, default_value_t = 32)]
    batch: u32,
    #[command(flatten)]
    common: Common,
}

/// What is attached during a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Nothing,
    Everything,
    /// Everything but the fault program: allocations charge by themselves.
    Unseen,
    Empty,
}

const VARIANTS: [(&str, Variant); 4] = [
    ("nothing, again", Variant::Nothing),
    ("everything", Variant::Everything),
    ("faults unseen", Variant::Unseen),
    ("empty", Variant::Empty),
];

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.smoke {
        (args.rounds, args.slice) = (2, 10);
    }
    memstock_tests::live::alone(|| {
        host::require_privilege()?;
        let cgroup = CgroupMount::find()?.create(OF_BENCH)?;
        let measured = measure_in(&args, cgroup.cgroup());
        cgroup.remove()?;
        measured
    })
}

fn measure_in(args: &Args, cgroup: &Cgroup) -> Result<()> {
    let engine = loaded::engine(Settings { batch: args.batch, ..Settings::default() })?;
    engine.engine.register(cgroup.id, None, NO_LIMIT, NO_LIMIT)?;
    let hot = if args.cache { CACHE_TRACEPOINTS } else { HOT_TRACEPOINTS };
    let mut programs = Programs { engine, empty: loaded::empty()?, hot };
    let online = host::cpus()?.online;
    let mut all = vec![&online[..1], &online[..]];
    all.dedup();
    for cpus in all {
        let round = if args.cache { "cache" } else { "map" };
        let workers = Workers::doing(round, cpus, args.pages, &[&cgroup.dir])?;
        measure(args, &mut programs, &workers)?;
    }
    Ok(())
}

/// What can be attached.
struct Programs {
    engine: Loaded,
    empty: RawTracePoint,
    /// What the empty one is attached to.
    hot: [&'static str; 3],
}

/// The name of the empty program.
const EMPTY: &str = "empty";

impl Programs {
    fn attach(&mut self, variant: Variant) -> Result<Vec<FdLink>> {
        let points: Vec<_> = match variant {
            Variant::Nothing => Vec::new(),
            Variant::Everything => charging().collect(),
            Variant::Unseen => charging().filter(|&(name, _)| name != PROBE).collect(),
            Variant::Empty => self.hot.map(|point| (EMPTY, point)).to_vec(),
        };
        let attach = |(name, point)| match name {
            EMPTY => attach_empty(&mut self.empty, point),
            name => self.engine.link(name, point),
        };
        points.into_iter().map(attach).collect()
    }

    fn run_stats(&mut self, names: &[&str]) -> Result<Vec<RunStats>> {
        let of = |name: &&str| match *name {
            EMPTY => RunStats::of(self.empty.fd()?),
            name => RunStats::of(self.engine.program(name)?.fd()?),
        };
        names.iter().map(of).collect()
    }
}

fn measure(args: &Args, programs: &mut Programs, workers: &Workers) -> Result<()> {
    let slice = Duration::from_millis(args.slice);
    let seen = interleave(args.rounds, VARIANTS.len(), |n| {
        let links = programs.attach(n.map_or(Variant::Nothing, |n| VARIANTS[n].1))?;
        // Warms stocks and caches before it counts.
        std::thread::sleep(slice / 10);
        let done = workers.slice(slice);
        drop(links);
        done
    })?;
    let cpus = workers.len();
    println!(
        "\n{cpus} CPU(s), {} pages at a time, batch {}; {} slices of {} ms each, between two of nothing; \
         medians with 95 % intervals",
        args.pages, args.batch, args.rounds, args.slice
    );
    println!(
        "attached                      ns of CPU a page        more, ns      throughput, by nothing"
    );
    for ((name, _), slices) in VARIANTS.iter().zip(&seen) {
        let cost = pairs(slices, |done| done.page_ns);
        let ratio = ratio(&pairs(slices, |done| done.rate)).digits(3);
        let (cost, more) = (values(&cost).digits(0), difference(&cost).digits(0));
        println!("{name:<14} {cost:>24} {more:>22} {ratio:>26}");
    }
    run_times(args, programs, workers)
}

/// Measures how often per page and how long each program runs.
fn run_times(args: &Args, programs: &mut Programs, workers: &Workers) -> Result<()> {
    let _stats = aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .context("cannot enable run-time statistics")?;
    let slice = Duration::from_millis(args.slice * 4);
    let names: BTreeSet<_> = charging().map(|(name, _)| name).chain([EMPTY]).collect();
    let names = Vec::from_iter(names);
    let mut costs = vec![Vec::new(); names.len()];
    let mut runs = vec![Vec::new(); names.len()];
    for _ in 0..args.rounds.div_ceil(4) {
        for variant in [Variant::Everything, Variant::Empty] {
            let links = programs.attach(variant)?;
            std::thread::sleep(slice / 10);
            let (before, pages) = (programs.run_stats(&names)?, workers.pages());
            std::thread::sleep(slice);
            let (after, pages) = (programs.run_stats(&names)?, workers.pages() - pages);
            for (n, run) in
                after.iter().zip(&before).map(|(after, before)| after.since(*before)).enumerate()
            {
                // Rarer runs are due to other tasks. (No pages: the workers did not run, on an overloaded machine.)
                if pages > 0 && run.run_cnt * 100 > pages {
                    costs[n].push(run.run_time_ns as f64 / run.run_cnt as f64);
                    runs[n].push(run.run_cnt as f64 / pages as f64);
                }
            }
            drop(links);
        }
    }
    println!("program         runs/page  ns a run, the statistic itself included");
    for ((name, costs), runs) in
        names.iter().zip(&costs).zip(&runs).filter(|((_, c), _)| !c.is_empty())
    {
        println!("{name:<14} {:>10.2}  {}", Estimate::of(runs).median, Estimate::of(costs));
    }
    Ok(())
}
