//! Readers leave the other CPUs alone: a sample on one CPU sends no interrupt to another, where a stock may be in use or
//! nothing runs at all.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memstock_tests::http::get;
use memstock_tests::interrupts::received;
use memstock_tests::live::{live, name};
use memstock_tests::poll::SOON;
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::workload::cpus::{on, pin_process};
use memstock_tests::{Engine, TestCgroup};

/// The readers' CPU.
const CPU: u32 = 0;
/// So many times the others are to be left alone without a reader.
const QUIET: u32 = 40;
/// After so many attempts the host is too busy.
const MOST: u32 = 4000;

/// The interrupts that the other CPUs were sent by CPUs.
fn interrupts() -> Result<u64> {
    Ok(received()?.into_iter().filter(|&(cpu, _)| cpu != CPU).map(|(_, count)| count).sum())
}

/// Whether the other CPUs are left alone meanwhile; and how long it takes.
fn is_quiet(what: impl FnOnce() -> Result<()>) -> Result<(bool, Duration)> {
    let (before, start) = (interrupts()?, Instant::now());
    what()?;
    let took = start.elapsed();
    Ok((interrupts()? == before, took))
}

/// Fails if the other CPUs are left alone in less than a quarter as many calls of `read` as of `rest`, which keeps the
/// CPU as long. What else runs on the host interrupts them now and then; what a read does would show each time.
fn leaves_alone(read: impl Fn() -> Result<()>, rest: impl Fn() -> Result<()>) -> Result<()> {
    let (mut reads, mut rests, mut turns) = (0, 0, 0);
    while rests < QUIET {
        turns += 1;
        ensure!(turns <= MOST, "quiet in {reads} reads and {rests} rests: the host is too busy");
        let (quiet, took) = is_quiet(&read)?;
        reads += u32::from(quiet);
        let as_long = || -> Result<()> {
            let end = Instant::now() + took;
            rest()?;
            // Without sleeping, or tasks of others would run here that now run on other CPUs.
            while Instant::now() < end {}
            Ok(())
        };
        rests += u32::from(is_quiet(as_long)?.0);
    }
    ensure!(reads >= rests / 4, "quiet in {reads} of {turns} reads, and in {rests} rests");
    println!("quiet in {reads} of {turns} reads, and in {rests} rests");
    Ok(())
}

fn run(args: &[&str]) -> Result<()> {
    let finished = memstock(args)?.finish(SOON)?;
    ensure!(finished.code() == 0, "{args:?}: {finished:?}");
    Ok(())
}

/// With enough cgroups that a sample reads several pages of each map.
#[test]
fn a_reader_leaves_other_cpus_alone() -> Result<()> {
    const CGROUPS: usize = 200;
    live(|| {
        if memstock::host::cpus()?.online.len() == 1 {
            skip(&name(), "there is no other CPU");
            return Ok(());
        }
        let root = TestCgroup::new()?;
        let _below =
            (0..CGROUPS).map(|n| root.child(&format!("{n}"))).collect::<Result<Vec<_>>>()?;
        let engine = Engine::start(["--cgroup", root.path(), "--metrics", "0"])?;
        let at = engine.metrics()?;
        for entry in fs::read_dir(format!("/proc/{}/task", engine.daemon()))? {
            let thread = entry?.file_name().to_string_lossy().parse()?;
            pin_process(thread, CPU)?;
        }
        on(CPU, || {
            // What starting and ending a process does is not what reading does.
            let start = || run(&["--version"]);
            leaves_alone(|| run(&["show", "--json"]), start).context("memstock show")?;
            leaves_alone(|| run(&["top", "-b", "-n", "1"]), start).context("memstock top")?;
            leaves_alone(|| get(at, "/metrics").map(drop), || Ok(())).context("a scrape")
        })?;
        engine.stop().map(drop)
    })
}
