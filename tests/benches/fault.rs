//! `cargo xtask bench fault`: what the fault program costs, by the kernel's run-time statistics.
//!
//! Four variants on the same tracepoint, in one process, in interleaved slices: a stock hit
//! (batch 1024), a miss on every fault (batch 1), a fault of an untracked cgroup, and the empty
//! program, which is what any program on the tracepoint costs, the statistic itself included.
//! The probes of allocations and frees are attached with the fault program: they take the page that
//! it left pending, and give it back.
//! Each round runs every variant once, the empty one twice; differences are taken within a round,
//! so that what disturbs the machine for longer than a round cancels out. The second empty slice
//! against the first shows what the method can resolve.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use memstock::cgroup::CgroupMount;
use memstock::engine::load::{Loaded, PROBE, Settings, YARDSTICK, load};
use memstock::engine::pins::Pins;
use memstock::engine::program::RunStats;
use memstock::host;
use memstock_common::NO_LIMIT;
use memstock_tests::statistics::Quartiles;
use memstock_tests::workload::pages::round;

/// Costs of the fault program.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every variant once.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Length of a slice.
    #[arg(long, default_value = "50", value_name = "MS")]
    slice: u64,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Pages that are mapped, touched and unmapped at a time.
const PAGES: usize = 512;
/// What is attached beside the fault program.
const BESIDE: [(&str, &str); 2] = [("page_alloc", "mm_page_alloc"), ("page_free", "mm_page_free")];

/// One thing to measure: a program of an engine of its own.
struct Variant {
    name: &'static str,
    loaded: Loaded,
    program: &'static str,
    pins: Pins,
}

impl Drop for Variant {
    fn drop(&mut self) {
        if let Err(error) = self.pins.remove() {
            eprintln!("{error:#}");
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    host::require_privilege()?;
    let bpffs = host::bpffs()?;
    let mount = CgroupMount::find()?;
    let cgroup = mount.create("memstock-bench")?;
    let id = cgroup.cgroup().id;
    let home = current_cgroup(&mount)?;
    fs::write(cgroup.cgroup().dir.join("cgroup.procs"), "0").context("cannot enter the cgroup")?;

    let variant = |name, program, batch, track: bool| -> Result<Variant> {
        let pins = Pins::at(bpffs.dir.join(format!("memstock-bench-{name}")));
        let loaded = load(&pins, Settings { batch, ..Settings::default() })?;
        let variant = Variant { name, loaded, program, pins };
        if track {
            variant.loaded.engine.register(id, None, NO_LIMIT, NO_LIMIT)?;
        }
        Ok(variant)
    };
    let measured = (|| {
        let mut variants = [
            variant("empty", YARDSTICK, 32, false)?,
            variant("hit", PROBE, 1024, true)?,
            variant("untracked", PROBE, 32, false)?,
            variant("miss", PROBE, 1, true)?,
            variant("control", YARDSTICK, 32, false)?,
        ];
        measure(&args, &mut variants)
    })();
    fs::write(home.join("cgroup.procs"), "0").context("cannot leave the cgroup")?;
    cgroup.remove()?;
    bpffs.release()?;
    measured
}

fn current_cgroup(mount: &CgroupMount) -> Result<std::path::PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2")?;
    Ok(mount.dir().join(path))
}

fn measure(args: &Args, variants: &mut [Variant]) -> Result<()> {
    let _stats = aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .context("cannot enable run-time statistics")?;
    let slice = Duration::from_millis(args.slice);
    let mut costs = vec![Vec::with_capacity(args.rounds); variants.len()];
    let mut faults = vec![0; variants.len()];
    for _ in 0..args.rounds {
        for (n, variant) in variants.iter_mut().enumerate() {
            let run = one_slice(variant, slice)?;
            faults[n] += run.run_cnt;
            costs[n].push(run.run_time_ns as f64 / run.run_cnt as f64);
        }
    }
    println!(
        "{} rounds of {} ms slices; ns per run with quartiles; net: minus the empty program, \
         within the round",
        args.rounds, args.slice
    );
    println!("{:<10} {:>10} {:>24} {:>24}", "variant", "faults", "ns per run", "net ns");
    let empty = costs[0].clone();
    for (n, variant) in variants.iter().enumerate() {
        let net: Vec<f64> = costs[n].iter().zip(&empty).map(|(cost, empty)| cost - empty).collect();
        println!(
            "{:<10} {:>10} {:>24} {:>24}",
            variant.name,
            faults[n],
            Quartiles::of(&costs[n]).to_string(),
            Quartiles::of(&net).to_string()
        );
    }
    Ok(())
}

/// Attaches the program, faults for a while, detaches, and returns what it ran.
fn one_slice(variant: &mut Variant, slice: Duration) -> Result<RunStats> {
    let beside = if variant.program == PROBE { &BESIDE[..] } else { &[] };
    let links = beside
        .iter()
        .map(|&(name, point)| Ok((name, variant.loaded.program(name)?.attach(point)?)))
        .collect::<Result<Vec<_>>>()?;
    let program = variant.loaded.program(variant.program)?;
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
        variant.loaded.program(name)?.detach(link)?;
    }
    Ok(run)
}
