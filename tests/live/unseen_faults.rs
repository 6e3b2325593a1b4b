//! An engine that starts as if the kernel had no page-fault tracepoints. Usage and limits go by allocations, and the
//! number of faults is unknown.

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use memstock_tests::audit::beside;
use memstock_tests::exposition::Exposition;
use memstock_tests::hog::{HogBuilder, size};
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, poll_until};
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, KernelCgroup, PAGE, Task, TestCgroup};

const BATCH: u64 = 32;
/// The task's CPU, so that it uses one stock.
const CPU: u32 = 1;

/// Checks that JSON, table and metrics show faults as unknown.
fn are_unknown(engine: &Engine) -> Result<()> {
    let show = engine.show()?;
    ensure!(show.cpus.iter().all(|cpu| cpu.faults.is_none()), "{show:#?}");
    ensure!(show.cgroups.iter().all(|cgroup| cgroup.faults.is_none()), "{show:#?}");
    let table = memstock(["show"])?.finish(SOON)?.stdout;
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = table
        .lines()
        .map(columns)
        .skip_while(|words| words.first().is_none_or(|word| word != "CGROUP"));
    let head = lines.next().context("the cgroups")?;
    let place = head.iter().position(|word| word == "FAULTS").context("their faults")?;
    let row = lines.next().context("a cgroup")?;
    ensure!(row.get(place).is_some_and(|word| word == "-"), "{table}");
    let found = Exposition::get(engine.metrics()?)?;
    for absent in ["memstock_cgroup_faults_total", "memstock_cpu_faults_total"] {
        ensure!(found.of(absent).next().is_none(), "{absent} is told");
    }
    ensure!(found.of("memstock_cgroup_charged_bytes_total").next().is_some());
    Ok(())
}

/// Allocations are charged in whole batches, also after another daemon has adopted the engine without a fault program.
#[test]
fn pages_are_charged_as_they_are_allocated() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, Some(CPU))?;
        let mut engine = Engine::without_faults(&cgroup, &["--metrics", "0"])?;
        // The kernel frees the program a little after the daemon has closed it.
        poll_until(SOON, "the end of the program", || {
            let is_there = loaded_programs().flatten().any(|program| program.name() == b"fault");
            (!is_there).then_some(())
        })?;
        let mut asked = 0;
        let mut touch = |engine: &Engine, nr_pages| {
            asked += task.touch(nr_pages)?;
            let show = engine.show()?;
            let seen = show.cgroup(cgroup.path())?;
            let misses = asked.div_ceil(BATCH);
            ensure!((seen.charged_pages, seen.missed()) == (asked, misses), "{seen:#?}");
            ensure!(seen.memory.usage == misses * BATCH * PAGE, "whole batches: {seen:#?}");
            show.check()
        };
        for nr_pages in [1, 30, 1, 99, 1024] {
            touch(&engine, nr_pages)?;
        }
        are_unknown(&engine)?;
        engine.kill()?;
        engine.adopt(["--no-adopt", "--no-drain", "--metrics", "0"])?;
        touch(&engine, 500)?;
        are_unknown(&engine)?;
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

#[test]
fn pages_are_those_of_the_kernel() -> Result<()> {
    live(|| are_those_of_the_kernel(|top| Engine::without_faults(top, &[])))
}

/// Compares an engine with the kernel's own accounting, page by page, for memory that is got with and without faults.
pub fn are_those_of_the_kernel(start: impl FnOnce(&TestCgroup) -> Result<Engine>) -> Result<()> {
    const MODES: [Mode; 8] = [
        Mode::AnonWrite,
        Mode::AnonReadWrite,
        Mode::Mlock,
        Mode::Huge,
        Mode::SharedAnon,
        Mode::TmpfsWrite,
        Mode::MmapFileShared,
        Mode::ForkWrite,
    ];
    let top = TestCgroup::new()?;
    let Some(kernel) = KernelCgroup::beside(&top)? else {
        skip(&name(), ABSENT);
        return Ok(());
    };
    let engine = start(&top)?;
    let mut holders = Vec::new();
    for mode in MODES {
        let mut holder = Holder::of(mode).pages(600).cgroup(&top).kernel(&kernel).start()?;
        holder.get().with_context(|| mode.name())?;
        holders.push(holder);
    }
    let audit = engine.audit_at_rest(&beside(&top, &kernel))?;
    eprintln!("{audit}");
    ensure!(audit.agreement()?.counts.different() == 0, "{audit}");
    engine.show()?.check()?;
    drop(holders);
    engine.audit_at_rest::<&str>(&[])?;
    engine.stop().map(drop)
}

/// Tasks are not throttled at a limit, so the daemon must be fast enough.
#[test]
fn a_limit_is_kept() -> Result<()> {
    const LIMIT: u64 = 4096;
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::without_faults(&cgroup, &["--limit", &size(LIMIT)])?;
        for run in 0..6 {
            let mut hog = HogBuilder::pages(2 * LIMIT).cpu(run % 2).start(&cgroup)?;
            hog.was_killed().with_context(|| format!("run {run}"))?;
        }
        let show = engine.show()?;
        let memory = &show.cgroup(cgroup.path())?.memory;
        let over = memory.watermark.saturating_sub(LIMIT * PAGE) / PAGE;
        eprintln!("{over} pages above");
        // Until the daemon has frozen it, the task allocates at full speed: some hundred pages. A task that is not
        // stopped in time gets all that it wants, LIMIT above.
        ensure!(memory.failcnt > 0 && over < LIMIT, "{over} pages above: {show:#?}");
        ensure!(memory.usage <= LIMIT * PAGE, "{memory:#?}");
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}
