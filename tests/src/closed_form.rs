//! What is counted and charged for so many faults, by whatever the engine sees them.

use anyhow::{Result, ensure};

use crate::{Engine, PAGE, Task, TestCgroup, live};

/// The CPU under test: the one that the boot work is not on.
const CPU: u32 = 1;

/// A live test: touches pages below an engine with these arguments, and compares after each touch. Nothing here
/// has a tolerance:
///
/// - the task runs before the engine and waits, so its start is not counted;
/// - a command costs the task no fault but those asked for (`live::workload` proves it), and
///   `/proc/PID/stat`, read from outside, costs it none at all;
/// - nobody else is tracked, so nobody else touches the stock of this CPU.
///
/// # Errors
/// When something is otherwise.
pub fn batches_follow_from_faults(batch: u64, args: &[&str]) -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, Some(CPU))?;
        let batches = batch.to_string();
        let engine =
            Engine::start([&["--cgroup", cgroup.path(), "--batch", &batches], args].concat())?;
        let start = task.faults()?;
        let before = engine.show()?;
        ensure!(before.batch == batch, "batch {batch} became {}", before.batch);
        ensure!(before.cgroup(cgroup.path())?.faults == 0, "a waiting task faults: {before:#?}");

        let mut asked = 0;
        for nr_pages in [1, 1, 30, 1, 99, 500, 1024, 1, 3] {
            let touched = task.touch(nr_pages)?;
            asked += nr_pages;
            let counted = task.faults()? - start;
            ensure!(touched == nr_pages && counted == asked, "the workload faults by itself");

            let show = engine.show()?;
            let seen = show.cgroup(cgroup.path())?;
            let misses = counted.div_ceil(batch);
            ensure!(seen.faults == counted, "{counted} faults, but charged are {seen:#?}");
            ensure!(seen.missed() == misses, "{misses} misses expected: {seen:#?}");
            ensure!(seen.charged_pages == counted, "a page for each fault: {seen:#?}");
            ensure!(seen.memory.usage == misses * batch * PAGE, "whole batches: {seen:#?}");
            ensure!(seen.memory.watermark == seen.memory.usage, "it only grew: {seen:#?}");
            ensure!(seen.memory.limit.is_none() && seen.memory.failcnt == 0, "{seen:#?}");
            ensure!((seen.singles, seen.forced) == (0, 0), "there is no limit: {seen:#?}");
            let cpu = show.cpu(CPU)?;
            let counts = (cpu.faults, cpu.charged_pages, cpu.missed());
            ensure!(counts == (counted, counted, misses), "{cpu:#?} {seen:#?}");
            // perf's event does not serve a miss: of a batch of one, the allocation leaves nothing to stock.
            let refills = if show.faults_by == "perf" && batch == 1 { 0 } else { misses };
            ensure!((cpu.refills, cpu.drains) == (refills, 0), "nobody displaces it: {cpu:#?}");
            show.check()?;
        }
        engine.stop().map(drop)
    })
}
