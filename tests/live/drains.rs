//! The daemon's own drains, when the kernel starts to reclaim and when a limit is near.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memstock::engine;
use memstock::engine::pins::Pins;
use memstock::host;
use memstock_tests::engine::Event;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::Program;
use memstock_tests::skip::skip;
use memstock_tests::task::enter_dir;
use memstock_tests::{Engine, KernelCgroup, PAGE, Task, TestCgroup, scaled};

/// Starts an engine that drains by itself.
fn start(args: &[&str]) -> Result<Engine> {
    Engine::start_adopting(["--no-adopt"].iter().chain(args))
}

/// The events of drains for this reason.
fn receipts(engine: &Engine, why: &str) -> Result<Vec<Event>> {
    let mut events = engine.stream()?;
    events.retain(|event| event.kind == "drain" && event.field("why") == why);
    Ok(events)
}

/// Fills a kernel cgroup that has no tasks with clean page cache.
fn cached(kernel: &KernelCgroup, pages: u64) -> Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("memstock-test-").tempdir_in("/var/tmp")?;
    let mut command = Command::new("dd");
    command.args(["if=/dev/zero", "bs=1M", "conv=fsync"]);
    command.arg(format!("count={}", (pages * PAGE) >> 20));
    command.arg(format!("of={}", dir.path().join("cached").display()));
    enter_dir(&mut command, kernel.dir())?;
    let dd = Program::from(command).finish(3 * SOON)?;
    ensure!(dd.code() == 0, "{dd:?}");
    Ok(dir)
}

/// The time is only printed, since it depends on how busy the host is.
#[test]
fn reclaim_empties_the_stocks() -> Result<()> {
    /// The kernel's own stock for a cgroup on each CPU, in pages (`MEMCG_CHARGE_BATCH`). If draining those suffices for
    /// a limit, the kernel does not reclaim.
    const KERNEL_STOCK: u64 = 64;
    /// The kernel half reports reclaim at most once per millisecond.
    const APART: Duration = Duration::from_millis(2);
    live(|| {
        let Some(kernel) = KernelCgroup::new()? else {
            skip(&name(), ABSENT);
            return Ok(());
        };
        let cgroup = TestCgroup::new()?;
        let mut tasks = [Task::start(&cgroup, Some(0))?, Task::start(&cgroup, Some(1))?];
        let mut files = Vec::new();
        let engine = start(&["--cgroup", cgroup.path()])?;
        let maps = engine::Engine::open(&Pins::on(host::BPFFS.as_ref()))?;
        let step = 100 + KERNEL_STOCK * maps.possible().len() as u64;
        let stocked = || Ok::<u64, anyhow::Error>(maps.unused()?.values().sum());
        let mut emptied = 0;
        let tries = scaled(200);
        for _ in 0..tries {
            // Reclaim may take far more than asked for.
            if kernel.usage_pages()? < 2 * step {
                kernel.limit(None).context("lifting the limit")?;
                files.push(cached(&kernel, 4096)?);
            }
            sleep(APART);
            for task in &mut tasks {
                task.touch(1)?;
            }
            emptied += u32::from(stocked()? > 0);
            // The kernel reclaims until the usage is below the limit; it has no task to kill.
            let usage = kernel.usage_pages()?;
            kernel.limit(Some(usage - step)).context("lowering the limit")?;
            try_poll_until(SOON, "empty stocks", || Ok((stocked()? == 0).then_some(())))?;
        }
        ensure!(emptied > 0, "nothing was ever stocked");
        let mut times = try_poll_until(SOON, "the receipts", || {
            let receipts = receipts(&engine, "reclaim")?;
            Ok((receipts.len() >= tries as usize / 2).then_some(receipts))
        })?
        .iter()
        .map(|receipt| receipt.field("since_event_ns").parse::<u64>().context("since_event_ns"))
        .collect::<Result<Vec<_>>>()?;
        times.sort_unstable();
        let part = |percent: usize| times[(times.len() - 1) * percent / 100];
        eprintln!(
            "from the start of reclaim to empty stocks, {} times: p50 {} us, p99 {} us, max {} us; {} merged \
             in the kernel half",
            times.len(),
            part(50),
            part(99),
            part(100),
            engine.show()?.loss.reclaims_merged
        );
        engine.stop().map(drop)
    })
}

#[test]
fn a_limit_that_is_near_drains_its_subtree_only() -> Result<()> {
    const BATCH: u64 = 32;
    live(|| {
        let (top, outside) = (TestCgroup::new()?, TestCgroup::new()?);
        let (greedy, idle) = (top.child("greedy")?, top.child("idle")?);
        let mut eater = Task::start(&greedy, Some(0))?;
        let mut others = [Task::start(&idle, Some(1))?, Task::start(&outside, Some(1))?];
        // Three batches, and half of one.
        let limit = format!("{}={}", top.path(), (3 * BATCH + BATCH / 2) * PAGE);
        let mut args = vec!["--slots", "8", "--limit", &limit];
        let paths = [&top, &greedy, &idle, &outside].map(TestCgroup::path);
        args.extend(paths.iter().flat_map(|path| ["--cgroup", path]));
        let engine = start(&args)?;
        for task in &mut others {
            task.touch(1)?;
        }
        // A third batch no longer fits.
        eater.touch(2 * BATCH + 1)?;
        let receipt = try_poll_until(SOON, "a drain of what the idle one has", || {
            let receipts = receipts(&engine, "limit-near")?;
            Ok(receipts.into_iter().find(|receipt| receipt.field("nr_pages") != "0"))
        })?;
        ensure!(receipt.field("cgroup") == top.path(), "{receipt:?}");
        let cpu = format!("1:{}", BATCH - 1);
        ensure!(receipt.field("cpus").split(',').any(|given| given == cpu), "{receipt:?}");
        let show = engine.show()?;
        ensure!(show.cgroup(idle.path())?.stocked == 0, "{show:#?}");
        // The kernel may have started to reclaim for another reason.
        let is_kept = show.cgroup(outside.path())?.stocked == (BATCH - 1) * PAGE;
        ensure!(is_kept || !receipts(&engine, "reclaim")?.is_empty(), "{show:#?}");
        engine.stop().map(drop)
    })
}
