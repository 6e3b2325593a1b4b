//! `cargo xtask bench page`: what charging and uncharging pages costs a task that does nothing else.
//!
//! Workers, one a CPU and each a process of its own in one tracked cgroup, map, touch and unmap 1 MiB
//! for ever and count. In interleaved slices nothing is attached, then everything, then the empty
//! program on each of the hot tracepoints, then nothing again. Throughput is compared within a round,
//! so that what disturbs the machine for longer than that cancels out; nothing against nothing
//! shows what the method can resolve. In slices of their own, the kernel's statistics tell how long
//! each program runs.

use std::fs;
use std::process::{Child, Command};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::raw_trace_point::RawTracePointLinkId;
use clap::Parser;
use memstock::cgroup::CgroupMount;
use memstock::engine::load::{ATTACHMENTS, Loaded, Settings, YARDSTICK, load, probes};
use memstock::engine::pins::Pins;
use memstock::engine::program::RunStats;
use memstock::host;
use memstock_common::NO_LIMIT;
use memstock_tests::statistics::Quartiles;
use memstock_tests::workload::{cpus::pin, pages::round};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Costs of the programs, and what they take of a task's throughput.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every variant once.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Length of a slice.
    #[arg(long, default_value = "50", value_name = "MS")]
    slice: u64,
    /// Pages that are mapped, touched and unmapped at a time.
    #[arg(long, default_value_t = 256)]
    pages: usize,
    /// Pages charged at once.
    #[arg(long, default_value_t = 32)]
    batch: u32,
    /// Run as the worker on this CPU, counting in this file.
    #[arg(long, hide = true, value_names = ["CPU", "FILE"], num_args = 2)]
    worker: Option<Vec<String>>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The tracepoints that every page passes.
const HOT: [&str; 3] = ["page_fault_user", "mm_page_alloc", "mm_page_free"];

/// What is attached during a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Nothing,
    Everything,
    Empty,
}

const VARIANTS: [(&str, Variant); 4] = [
    ("nothing", Variant::Nothing),
    ("everything", Variant::Everything),
    ("empty", Variant::Empty),
    ("nothing again", Variant::Nothing),
];

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some([cpu, file]) = args.worker.as_deref() {
        return work(cpu.parse()?, file, args.pages);
    }
    host::require_privilege()?;
    let bpffs = host::bpffs()?;
    let mount = CgroupMount::find()?;
    let cgroup = mount.create("memstock-bench")?;
    let pins = Pins::at(bpffs.dir.join("memstock-bench"));
    let measured = (|| {
        let mut loaded = load(&pins, Settings { batch: args.batch, ..Settings::default() })?;
        loaded.engine.register(cgroup.cgroup().id, None, NO_LIMIT, NO_LIMIT)?;
        let online = host::cpus()?.online;
        for cpus in [&online[..1], &online[..]] {
            let workers = Workers::start(cpus, &args, &cgroup.cgroup().dir.join("cgroup.procs"))?;
            measure(&args, &mut loaded, &workers)?;
            if online.len() == 1 {
                break;
            }
        }
        Ok(())
    })();
    pins.remove()?;
    cgroup.remove()?;
    bpffs.release()?;
    measured
}

/// A worker's life: until it is killed.
fn work(cpu: u32, file: &str, pages: usize) -> Result<()> {
    pin(cpu)?;
    let counter = counter_in(&fs::File::options().read(true).write(true).open(file)?)?;
    loop {
        round(pages)?;
        counter.fetch_add(pages as u64, Relaxed);
    }
}

/// A counter in the first bytes of a file, shared with whoever maps it.
fn counter_in(file: &fs::File) -> Result<&'static AtomicU64> {
    file.set_len(size_of::<AtomicU64>() as u64)?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
    let start = unsafe { mmap(ptr::null_mut(), 8, protection, MapFlags::SHARED, file, 0) };
    // SAFETY: the mapping is page-aligned and 8 bytes long, only ever used as this atomic, and stays
    // until the process ends.
    Ok(unsafe { &*start.context("cannot map the counter")?.cast::<AtomicU64>() })
}

/// The running workers. Killed and reaped on drop.
struct Workers {
    children: Vec<Child>,
    counters: Vec<(tempfile::NamedTempFile, &'static AtomicU64)>,
}

impl Workers {
    fn start(cpus: &[u32], args: &Args, procs: &std::path::Path) -> Result<Self> {
        let mut workers = Self { children: Vec::new(), counters: Vec::new() };
        for cpu in cpus {
            let file = tempfile::NamedTempFile::new()?;
            let counter = counter_in(file.as_file())?;
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--pages", &args.pages.to_string(), "--worker", &cpu.to_string()]);
            let child = command.arg(file.path()).spawn()?;
            fs::write(procs, child.id().to_string())?;
            workers.children.push(child);
            workers.counters.push((file, counter));
        }
        Ok(workers)
    }

    fn pages(&self) -> u64 {
        self.counters.iter().map(|(_, counter)| counter.load(Relaxed)).sum()
    }

    /// Pages a second during a slice.
    fn throughput(&self, slice: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.pages());
        std::thread::sleep(slice);
        (self.pages() - before) as f64 / start.elapsed().as_secs_f64()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

type Links = Vec<(&'static str, RawTracePointLinkId)>;

fn attach(loaded: &mut Loaded, variant: Variant) -> Result<Links> {
    let of_all = ATTACHMENTS.iter().copied().filter(|_| variant == Variant::Everything);
    let of_empty = HOT.iter().map(|&point| (YARDSTICK, point));
    of_all
        .chain(of_empty.filter(|_| variant == Variant::Empty))
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
    let mut seen = vec![Vec::new(); VARIANTS.len()];
    for _ in 0..args.rounds {
        for (n, (_, variant)) in VARIANTS.iter().enumerate() {
            let links = attach(loaded, *variant)?;
            // Stocks and caches are warm before anything is counted.
            std::thread::sleep(slice / 10);
            seen[n].push(workers.throughput(slice));
            detach(loaded, links)?;
        }
    }
    println!(
        "\n{} CPU(s), rounds of {} pages, batch {}; {} rounds of {} ms slices",
        workers.children.len(),
        args.pages,
        args.batch,
        args.rounds,
        args.slice
    );
    println!("attached        ns a page  throughput, % of nothing in the round");
    for ((name, _), rates) in VARIANTS.iter().zip(&seen) {
        let ratios: Vec<f64> =
            rates.iter().zip(&seen[0]).map(|(rate, nothing)| 100.0 * rate / nothing).collect();
        let cost: Vec<f64> =
            rates.iter().map(|rate| 1e9 * workers.children.len() as f64 / rate).collect();
        println!("{name:<14} {:>10.0}  {}", Quartiles::of(&cost).median, Quartiles::of(&ratios));
    }
    run_times(args, loaded, workers)
}

/// How often and how long each program runs for each page.
fn run_times(args: &Args, loaded: &mut Loaded, workers: &Workers) -> Result<()> {
    let _stats = aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .context("cannot enable run-time statistics")?;
    let slice = Duration::from_millis(args.slice * 4);
    let mut names: Vec<_> = probes().collect();
    names.push(YARDSTICK);
    let mut costs = vec![Vec::new(); names.len()];
    let mut runs = vec![Vec::new(); names.len()];
    for _ in 0..args.rounds.div_ceil(4) {
        for variant in [Variant::Everything, Variant::Empty] {
            let links = attach(loaded, variant)?;
            std::thread::sleep(slice / 10);
            let read = |loaded: &mut Loaded| -> Result<Vec<RunStats>> {
                names.iter().map(|name| RunStats::of(loaded.program(name)?.fd()?)).collect()
            };
            let (before, pages) = (read(loaded)?, workers.pages());
            std::thread::sleep(slice);
            let (after, pages) = (read(loaded)?, workers.pages() - pages);
            ensure!(pages > 0, "the workers stand still");
            for (n, run) in
                after.iter().zip(&before).map(|(after, before)| after.since(*before)).enumerate()
            {
                // Many fewer are others' business.
                if run.run_cnt * 100 > pages {
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
        println!("{name:<14} {:>10.2}  {}", Quartiles::of(runs).median, Quartiles::of(costs));
    }
    Ok(())
}
