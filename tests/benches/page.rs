//! `cargo xtask bench page`: what charging and uncharging pages costs a task that does nothing else.
//!
//! Workers map, touch and unmap 1 MiB for ever, in one tracked cgroup. In turns everything is attached, with faults
//! seen or unseen, or the empty program on each of the hot tracepoints, each between
//! slices of nothing. In slices of their own, the kernel's statistics tell how long each program runs. `memstock bench table1` has more variants.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::raw_trace_point::RawTracePointLinkId;
use clap::Parser;
use memstock::bench::slices::{Stop, interleave, pairs};
use memstock::bench::statistics::{Estimate, difference, ratio, values};
use memstock::bench::workers::Workers;
use memstock::engine::load::{Loaded, Settings, load};
use memstock::engine::object::{ATTACHMENTS, BASELINE, HOT_TRACEPOINTS, PROBE, probes};
use memstock::engine::pins::Pins;
use memstock::engine::program::RunStats;
use memstock::host;
use memstock::host::cgroup::CgroupMount;
use memstock_common::NO_LIMIT;
use memstock_tests::binaries;
use memstock_tests::cgroup::OF_BENCH;

/// Costs of the programs, and what they take of a task's throughput.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every variant once
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Length of a slice
    #[arg(long, default_value = "50", value_name = "MS")]
    slice: u64,
    /// Pages that are mapped, touched and unmapped at a time
    #[arg(long, default_value_t = 256)]
    pages: usize,
    /// Pages charged at once
    #[arg(long, default_value_t = 32)]
    batch: u32,
    /// A few short slices, to see that it works
    #[arg(long)]
    smoke: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is attached during a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Nothing,
    Everything,
    /// The same, but faults are not seen: what they allocate charges itself.
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
    if args.smoke {
        (args.rounds, args.slice) = (2, 10);
    }
    memstock_tests::live::alone(|| {
        host::require_privilege()?;
        let bpffs = host::bpffs()?;
        let mount = CgroupMount::find()?;
        let cgroup = mount.create(OF_BENCH)?;
        let pins = Pins::at(bpffs.dir.join(OF_BENCH));
        let measured = (|| {
            let loaded = load(&pins, Settings { batch: args.batch, ..Settings::default() });
            pins.remove()?;
            let mut loaded = loaded?;
            loaded.engine.register(cgroup.cgroup().id, None, NO_LIMIT, NO_LIMIT)?;
            let online = host::cpus()?.online;
            let dirs = [cgroup.cgroup().dir.as_path()];
            for cpus in [&online[..1], &online[..]] {
                let workers = Workers::start(&binaries::memstock()?, cpus, args.pages, &dirs)?;
                measure(&args, &mut loaded, &workers)?;
                if online.len() == 1 {
                    break;
                }
            }
            Ok(())
        })();
        cgroup.remove()?;
        bpffs.release()?;
        measured
    })
}

type Links = Vec<(&'static str, RawTracePointLinkId)>;

fn attach(loaded: &mut Loaded, variant: Variant) -> Result<Links> {
    let points: Vec<_> = match variant {
        Variant::Nothing => Vec::new(),
        Variant::Everything => ATTACHMENTS.to_vec(),
        Variant::Unseen => ATTACHMENTS.into_iter().filter(|&(name, _)| name != PROBE).collect(),
        Variant::Empty => HOT_TRACEPOINTS.map(|point| (BASELINE, point)).to_vec(),
    };
    points
        .into_iter()
        .map(|(name, tracepoint)| Ok((name, loaded.program(name)?.attach(tracepoint)?)))
        .collect()
}

fn detach(loaded: &mut Loaded, links: Links) -> Result<()> {
    for (name, link) in links {
        loaded.program(name)?.detach(link)?;
    }
    Ok(())
}

fn measure(args: &Args, loaded: &mut Loaded, workers: &Workers) -> Result<()> {
    let slice = Duration::from_millis(args.slice);
    let stop = Stop::default();
    let seen = interleave(args.rounds, VARIANTS.len(), &stop, |n| {
        let links = attach(loaded, n.map_or(Variant::Nothing, |n| VARIANTS[n].1))?;
        // Stocks and caches are warm before anything is counted.
        std::thread::sleep(slice / 10);
        let done = workers.slice(slice, &stop);
        detach(loaded, links)?;
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
    run_times(args, loaded, workers)
}

/// How often and how long each program runs for each page.
fn run_times(args: &Args, loaded: &mut Loaded, workers: &Workers) -> Result<()> {
    let _stats = aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .context("cannot enable run-time statistics")?;
    let slice = Duration::from_millis(args.slice * 4);
    let mut names: Vec<_> = probes().collect();
    names.push(BASELINE);
    let mut costs = vec![Vec::new(); names.len()];
    let mut runs = vec![Vec::new(); names.len()];
    for _ in 0..args.rounds.div_ceil(4) {
        for variant in [Variant::Everything, Variant::Empty] {
            let links = attach(loaded, variant)?;
            std::thread::sleep(slice / 10);
            let read = |loaded: &Loaded| -> Result<Vec<RunStats>> {
                names.iter().map(|name| loaded.run_stats(name)).collect()
            };
            let (before, pages) = (read(loaded)?, workers.pages());
            std::thread::sleep(slice);
            let (after, pages) = (read(loaded)?, workers.pages() - pages);
            for (n, run) in
                after.iter().zip(&before).map(|(after, before)| after.since(*before)).enumerate()
            {
                // Many fewer are others' business. (No page: they had no turn on a machine too busy.)
                if pages > 0 && run.run_cnt * 100 > pages {
                    costs[n].push(run.run_time_ns as f64 / run.run_cnt as f64);
                    runs[n].push(run.run_cnt as f64 / pages as f64);
                }
            }
            detach(loaded, links)?;
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
