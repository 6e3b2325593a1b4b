//! Readers leave the other CPUs alone: a sample on one CPU sends no interrupt to another, where a stock may be in use or
//! nothing runs at all.

use std::fs;
use std::process::{Child, Command};
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
/// So many reads that leave them alone are enough: one that sent an interrupt would show it each time.
const FEW: u32 = 3;
/// After so many attempts the host is too busy.
const MOST: u32 = 500;

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

/// Fails if hardly a call of `read` leaves the other CPUs alone, though [`QUIET`] of as many calls of `rest` do, which
/// keep the CPU as long. A process that starts, writes and ends interrupts others now and then.
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
    ensure!(reads >= FEW, "quiet in {reads} of {turns} reads, and in {rests} rests");
    println!("quiet in {reads} of {turns} reads, and in {rests} rests");
    Ok(())
}

/// A process that keeps a CPU busy.
struct Spinning(Child);

impl Spinning {
    fn on(cpu: u32) -> Result<Self> {
        let spinning = Self(Command::new("sh").args(["-c", "while :; do :; done"]).spawn()?);
        pin_process(spinning.0.id(), cpu)?;
        Ok(spinning)
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
        // While readers, test and daemon share a CPU, the scheduler asks an idle one at each tick to take tasks over
        // (`nohz_balancer_kick`).
        let others = memstock::host::cpus()?.online.into_iter().filter(|&cpu| cpu != CPU);
        let _busy = others.map(Spinning::on).collect::<Result<Vec<_>>>()?;
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
