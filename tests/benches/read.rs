//! `cargo xtask bench read`: the cost of reading with many tracked cgroups: one sample by `memstock show`, one scrape
//! of the daemon's metrics, and `memstock top` on terminals of two sizes, as a share of one CPU.
//!
//! One of the cgroups has a task that faults all the time, so that figures change, rows move, and readings are
//! disturbed. The cost is the CPU time of the process by the kernel's scheduler, without that of tmux. `show` writes into
//! a pipe: to write megabytes into a file would cost more than some parts of reading.

use std::fs;
use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use memstock_tests::bench::Common;
use memstock_tests::bench::statistics::Estimate;
use memstock_tests::http::get;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::tmux::Terminal;
use memstock_tests::{Engine, Task, TestCgroup, binaries, live};

/// Measure the cost of reading.
#[derive(Parser)]
struct Args {
    /// Tracked cgroups.
    #[arg(long, default_value_t = 1000)]
    cgroups: usize,
    /// Samples of `memstock show`, and scrapes.
    #[arg(long, default_value_t = 20)]
    samples: usize,
    /// Seconds to measure `memstock top`, at each size.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[command(flatten)]
    common: Common,
}

const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.smoke {
        (args.cgroups, args.samples, args.seconds) = (10, 2, 1);
    }
    live(|| measure(&args))
}

fn measure(args: &Args) -> Result<()> {
    let root = TestCgroup::new()?;
    for number in 1..args.cgroups {
        let dir = root.dir().join(format!("service-{number}"));
        fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    }
    let busy = root.child("busy")?;
    let room = (args.cgroups + 2).to_string();
    let mut engine =
        Engine::start(["--cgroup", root.path(), "--metrics", "0", "--max-cgroups", &room])?;
    let at = engine.metrics()?;
    try_poll_until(6 * SOON, "all cgroups", || {
        Ok((engine.show()?.cgroups.len() > args.cgroups).then_some(()))
    })?;
    let mut task = Task::start(&busy, None)?;
    task.churn()?;

    let mut costs = Vec::new();
    for _ in 0..args.samples {
        let before = of_children()?;
        let shown = Command::new(binaries::memstock()?).args(["show", "--json"]).output()?;
        ensure!(shown.status.success(), "memstock show: {}", shown.status);
        costs.push(1e3 * (of_children()? - before).as_secs_f64());
    }
    println!("{} tracked cgroups, one of them busy", args.cgroups + 1);
    println!("show --json: {} ms of CPU time a call", Estimate::of(&costs));
    let (mut costs, mut bytes) = (Vec::new(), 0);
    let daemon = engine.process().id();
    for _ in 0..args.samples {
        let before = on_cpu(daemon)?;
        bytes = get(at, "/metrics")?.len();
        costs.push(1e3 * (on_cpu(daemon)? - before).as_secs_f64());
    }
    println!("a scrape: {} ms of the daemon's CPU time, {bytes} bytes", Estimate::of(&costs));
    for size in SIZES {
        let program = binaries::memstock()?;
        let top = Terminal::start(size, &[], [program.as_os_str(), "top".as_ref()])?;
        top.wait_for("the view", |screen| screen.contains("CGROUPS"))?;
        let (start, before) = (Instant::now(), on_cpu(top.pid()?)?);
        std::thread::sleep(Duration::from_secs(args.seconds));
        let cost = on_cpu(top.pid()?)? - before;
        println!(
            "top at {} x {}, every second: {:.2} % of one CPU, over {} s",
            size.0,
            size.1,
            100.0 * cost.as_secs_f64() / start.elapsed().as_secs_f64(),
            args.seconds
        );
        top.press(&["q"])?;
        ensure!(top.restored()?.0 == 0);
    }
    drop(task);
    engine.end()
}

/// CPU time of a process, including threads that have ended.
fn on_cpu(pid: u32) -> Result<Duration> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: the call writes only to `clock`.
    let result = unsafe { libc::clock_getcpuclockid(pid.try_into()?, &raw mut clock) };
    ensure!(result == 0, "no CPU clock of {pid}: {}", io::Error::from_raw_os_error(result));
    // SAFETY: the call writes only to `time`.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(result == 0, "the CPU time of {pid}: {}", io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

/// CPU time of all child processes that have ended.
fn of_children() -> Result<Duration> {
    // SAFETY: all zeros are a valid structure of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes only to `usage`.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    ensure!(result == 0, "getrusage: {}", io::Error::last_os_error());
    let time = |of: libc::timeval| {
        Duration::from_secs(of.tv_sec.cast_unsigned())
            + Duration::from_micros(of.tv_usec.cast_unsigned())
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}
