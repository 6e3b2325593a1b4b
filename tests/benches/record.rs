//! `cargo xtask bench record`: what `memstock record` costs a task whose pages are charged anyway, and how much memory
//! and disk it takes.
//!
//! A worker in a tracked cgroup maps and unmaps memory, or reads a file from the page cache, for ever. In turns,
//! its cgroup is recorded, between slices in which it is only charged.

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::loaded_maps;
use clap::Parser;
use memstock_tests::bench::Common;
use memstock_tests::bench::slices::{interleave, pairs};
use memstock_tests::bench::statistics::{Estimate, ratio};
use memstock_tests::bench::workers::{Done, Workers};
use memstock_tests::poll::{SOON, poll_until};
use memstock_tests::process::{Process, memstock};
use memstock_tests::{Engine, TestCgroup, live};
use rustix::process::Signal;

/// What the worker does (`workload::churn::Round`).
const ROUNDS: [&str; 2] = ["map", "read"];

/// Measure the cost of recording.
#[derive(Parser)]
struct Args {
    /// Recordings of each task
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Length of a slice in milliseconds
    #[arg(long, default_value_t = 300, value_name = "MS")]
    slice: u64,
    /// Pages at a time
    #[arg(long, default_value_t = 4096)]
    pages: usize,
    /// Seconds of the recording whose file is measured, in its second half
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only this: `map` or `read`
    #[arg(long, value_name = "ROUND", value_parser = ROUNDS)]
    only: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What a recorder used.
#[derive(Clone, Copy, Debug)]
struct Used {
    /// Anonymous memory of the process, in MiB.
    memory: f64,
    /// Its own maps, in MiB.
    maps: f64,
}

const MIB: f64 = (1 << 20) as f64;

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.smoke {
        (args.rounds, args.slice, args.seconds) = (2, 50, 1);
    }
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        for round in ROUNDS {
            if args.only.as_ref().is_none_or(|only| only == round) {
                measure(&args, &cgroup, round)?;
            }
        }
        engine.stop().map(drop)
    })
}

fn measure(args: &Args, cgroup: &TestCgroup, round: &str) -> Result<()> {
    let workers = Workers::doing(round, &[0], args.pages, &[cgroup.dir()])?;
    let slice = Duration::from_millis(args.slice);
    let mut used = Vec::new();
    let seen = interleave(args.rounds, 1, |n| match n {
        None => workers.slice(slice),
        Some(_) => {
            let (done, one) = recorded(cgroup, &workers, slice)?;
            used.push(one);
            Ok(done)
        }
    })?;
    let rate = pairs(&seen[0], |done| done.rate);
    let work = pairs(&seen[0], |done| 1.0 / done.page_ns);
    let of = |figure: fn(&Used) -> f64| Estimate::of(&used.iter().map(figure).collect::<Vec<_>>());
    println!(
        "{round}, {} pages at a time, {} recordings of {} ms; medians with 95 % intervals",
        args.pages, args.rounds, args.slice
    );
    println!("  pages a second, by those without a recording      {}", ratio(&rate).digits(3));
    println!("  pages a second of CPU time, by the same           {}", ratio(&work).digits(3));
    println!(
        "  the recorder's memory without its program, MiB    {}",
        of(|used| used.memory).digits(2)
    );
    println!(
        "  its maps, MiB                                     {}",
        of(|used| used.maps).digits(2)
    );
    let grown = growth(cgroup, Duration::from_secs(args.seconds) / 2)?;
    println!("  its file, MB an hour                              {grown:.1}");
    Ok(())
}

/// A recorder and its file.
struct Recorder {
    process: Process,
    folder: tempfile::TempDir,
}

impl Recorder {
    /// Starts one. The header is written once everything is attached.
    fn start(cgroup: &TestCgroup) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("data");
        let path = file.to_str().context("a path that is not UTF-8")?;
        let process = memstock(["record", "-o", path, "--cgroup", cgroup.path()])?.start()?;
        let recorder = Self { process, folder };
        poll_until(SOON, "the recording", || (recorder.size() > 0).then_some(()))?;
        Ok(recorder)
    }

    /// Bytes of its file.
    fn size(&self) -> u64 {
        fs::metadata(self.folder.path().join("data")).map_or(0, |file| file.len())
    }

    fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::INT)?;
        let finished = self.process.wait(SOON)?;
        ensure!(finished.code() == 0, "{finished:?}");
        Ok(())
    }
}

/// What a file grows by once it has had its first MiB, in MB an hour.
fn growth(cgroup: &TestCgroup, half: Duration) -> Result<f64> {
    let recorder = Recorder::start(cgroup)?;
    sleep(half);
    let before = recorder.size();
    sleep(half);
    let grown = (recorder.size() - before) as f64;
    recorder.stop()?;
    Ok(grown / half.as_secs_f64() * 3600.0 / 1e6)
}

/// A slice during a recording.
fn recorded(cgroup: &TestCgroup, workers: &Workers, slice: Duration) -> Result<(Done, Used)> {
    let before: BTreeSet<_> = loaded_maps().flatten().map(|map| map.id()).collect();
    let recorder = Recorder::start(cgroup)?;
    let done = workers.slice(slice)?;
    let pid = recorder.process.id();
    let used = Used { memory: anonymous(pid)? / MIB, maps: maps(pid, &before)? / MIB };
    recorder.stop()?;
    Ok((done, used))
}

/// Bytes of anonymous memory of a process.
fn anonymous(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix("kB"));
    Ok(1024.0 * kib.context("no RssAnon")?.trim().parse::<f64>()?)
}

/// Bytes of the maps that a process has open and that are not among `others`.
fn maps(pid: u32, others: &BTreeSet<u32>) -> Result<f64> {
    let (mut seen, mut bytes) = (others.clone(), 0.0);
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name))?;
            value.trim().parse::<u32>().ok()
        };
        if let (Some(id), Some(size)) = (field("map_id:"), field("memlock:"))
            && seen.insert(id)
        {
            bytes += f64::from(size);
        }
    }
    Ok(bytes)
}
