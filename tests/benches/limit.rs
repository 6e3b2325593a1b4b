//! `cargo xtask bench limit`: how far above its limit a task gets, and how long it lives there, compared with the
//! kernel's own controller.
//!
//! In turns, a task that wants twice its limit runs in a tracked cgroup with that limit, alone and with
//! a second one on another CPU, and in a v1 memory cgroup of the kernel's with that limit. Nothing can be
//! reclaimed. The daemon reports the time from the limit hit to the kill. A task's life is measured from start to
//! end for both controllers, and compared within a round.
//!
//! An enforcing thread that gets no CPU is late. So rounds in which it waited for one (`schedstat`), or in which the
//! hypervisor took a CPU (steal in `/proc/stat`, in ticks of 10 ms), are reported separately.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use memstock_tests::bench::Common;
use memstock_tests::bench::statistics::{Estimate, Pair, ratio};
use memstock_tests::hog::{Hog, HogBuilder, size};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::{Engine, KernelCgroup, PAGE, TestCgroup, live};

/// Measure overshoot and time to kill.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every variant once
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// The limit, in pages
    #[arg(long, default_value_t = 16384)]
    limit: u64,
    #[command(flatten)]
    common: Common,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.smoke {
        (args.rounds, args.limit) = (1, 2048);
    }
    live(|| measure(&args))
}

/// If enforcement waited longer than this for a CPU in a round, that made it late: at ten pages above the limit, the
/// throttle delays the next page by about as much.
const LATE_NS: u64 = 100_000;

/// The results of one variant.
#[derive(Default)]
struct Seen {
    over: Vec<f64>,
    /// Whether the enforcing threads had a CPU whenever they needed one.
    had_cpu: Vec<bool>,
    kill_us: Vec<f64>,
    life_ms: Vec<f64>,
}

fn measure(args: &Args) -> Result<()> {
    let top = TestCgroup::new()?;
    let kernel = KernelCgroup::new()?;
    let engine = Engine::start(["--cgroup", top.path()])?;
    let (mut one, mut two, mut theirs) = (Seen::default(), Seen::default(), Seen::default());
    for round in 0..args.rounds {
        ours(args, &engine, &top, &format!("one-{round}"), &[0], &mut one)?;
        ours(args, &engine, &top, &format!("two-{round}"), &[0, 1], &mut two)?;
        if let Some(kernel) = &kernel {
            kernels(args, kernel, &format!("kernel-{round}"), &mut theirs)?;
        }
    }
    engine.end()?;
    println!("\n{} rounds, a limit of {} pages", args.rounds, args.limit);
    println!(
        "                        pages above the limit            limit to kill, us                life, ms"
    );
    for (name, seen) in
        [("one task", &one), ("two tasks, two CPUs", &two), ("kernel's v1", &theirs)]
    {
        println!(
            "{name:<20} {:>24}  {:>27}  {:>22}",
            spread(&seen.over),
            spread(&seen.kill_us),
            spread(&seen.life_ms)
        );
    }
    for (name, seen) in [("one task", &one), ("two tasks, two CPUs", &two)] {
        let rounds = seen.over.iter().zip(&seen.had_cpu);
        let over: Vec<f64> = rounds.filter(|(_, had)| **had).map(|(&over, _)| over).collect();
        println!(
            "{name:<20} {:>24}  in the {} rounds that had their CPUs",
            spread(&over),
            over.len()
        );
    }
    if !theirs.life_ms.is_empty() {
        let lives = one.life_ms.iter().zip(&theirs.life_ms);
        let pairs: Vec<_> = lives.map(|(&value, &control)| Pair { value, control }).collect();
        println!(
            "life of one task, times that at the kernel's limit: {} (95 % interval)",
            ratio(&pairs).digits(2)
        );
    }
    Ok(())
}

/// Median, 99th percentile, and maximum.
fn spread(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (p99, largest) = (sorted[(sorted.len() * 99).div_ceil(100) - 1], sorted[sorted.len() - 1]);
    format!("{:.0}, p99 {p99:.0}, max {largest:.0}", Estimate::of(values).median)
}

fn ours(
    args: &Args,
    engine: &Engine,
    top: &TestCgroup,
    name: &str,
    cpus: &[u32],
    seen: &mut Seen,
) -> Result<()> {
    let cgroup = top.child(name)?;
    try_poll_until(SOON, "a new cgroup to be tracked", || {
        Ok(engine.show()?.cgroup(cgroup.path()).is_ok().then_some(()))
    })?;
    let set = ["limit", cgroup.path(), "--memory", &size(args.limit)];
    anyhow::ensure!(memstock(set)?.finish(SOON)?.code() == 0, "the limit cannot be set");
    let (waited, stolen) = (waits(engine.daemon())?, stolen_ticks()?);
    let start = Instant::now();
    let hogs = cpus.iter().map(|&cpu| HogBuilder::pages(2 * args.limit).cpu(cpu).start(&cgroup));
    let mut hogs = hogs.collect::<Result<Vec<_>>>()?;
    hogs.iter_mut().try_for_each(Hog::was_killed)?;
    seen.life_ms.push(1e3 * start.elapsed().as_secs_f64());
    let waits = waits(engine.daemon())?;
    let longest = waits.iter().map(|(thread, ns)| ns - waited.get(thread).unwrap_or(&0)).max();
    let waited = longest.context("no thread enforces")?;
    seen.had_cpu.push(waited <= LATE_NS && stolen_ticks()? == stolen);
    let show = engine.show()?;
    let watermark = show.cgroup(cgroup.path())?.memory.watermark;
    seen.over.push((watermark / PAGE).saturating_sub(args.limit) as f64);
    let events = engine.events()?;
    let kills = events.iter().filter(|event| event.kind == "oom-kill");
    let here = kills.filter(|kill| kill.field("ancestor") == cgroup.path());
    let after = here.map(|kill| kill.field("after_ns").parse().context("after_ns"));
    let after = after.collect::<Result<Vec<f64>>>()?;
    seen.kill_us.extend(after.iter().map(|ns| ns / 1e3));
    Ok(())
}

/// How long each enforcing thread of the daemon has waited for a CPU, ns.
fn waits(daemon: u32) -> Result<BTreeMap<OsString, u64>> {
    let mut waits = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{daemon}/task"))? {
        let thread = thread?;
        if fs::read_to_string(thread.path().join("comm"))?.starts_with("enforce") {
            let schedstat = fs::read_to_string(thread.path().join("schedstat"))?;
            let waited = schedstat.split(' ').nth(1).context("schedstat has three fields")?;
            waits.insert(thread.file_name(), waited.parse()?);
        }
    }
    Ok(waits)
}

/// The time that the hypervisor has taken from all CPUs.
fn stolen_ticks() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let stolen = stat.split_whitespace().nth(8).context("/proc/stat has no steal")?;
    Ok(stolen.parse()?)
}

fn kernels(args: &Args, kernel: &KernelCgroup, name: &str, seen: &mut Seen) -> Result<()> {
    let limited = kernel.child(name)?;
    fs::write(limited.dir().join("memory.limit_in_bytes"), size(args.limit))?;
    let outside = TestCgroup::new()?;
    let start = Instant::now();
    let mut hog =
        HogBuilder::pages(2 * args.limit).cpu(0).kernel(Some(&limited)).start(&outside)?;
    hog.was_killed()?;
    seen.life_ms.push(1e3 * start.elapsed().as_secs_f64());
    let most = fs::read_to_string(limited.dir().join("memory.max_usage_in_bytes"))?;
    seen.over.push((most.trim().parse::<u64>()? / PAGE).saturating_sub(args.limit) as f64);
    Ok(())
}
