//! On hosts and guests with four CPUs or more: three of them go offline and online at once under load, and one CPU
//! drains the others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use memstock::enforce::drains::drain_cpus;
use memstock::engine;
use memstock::engine::pins::Pins;
use memstock::host;
use memstock_common::StockWord;
use memstock_tests::hotplug::{CpuOffline, can_go_offline};
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::workload::cpus::pin;
use memstock_tests::{Engine, Task, TestCgroup, scaled};

/// The CPUs to take offline; CPU 0 stays.
const GOING: [u32; 3] = [1, 2, 3];

/// Whether this host has them. Reports a skip if not.
fn has_four_cpus() -> bool {
    let has = GOING.iter().all(|cpu| can_go_offline(*cpu));
    if !has {
        skip(&name(), "CPUs 1 to 3 cannot be taken offline here");
    }
    has
}

fn maps() -> Result<engine::Engine> {
    engine::Engine::open(&Pins::on(host::BPFFS.as_ref()))
}

/// Pages stocked, pending or in uncharge batches on a CPU, and pages charged there.
fn stock(maps: &engine::Engine, of: u32) -> Result<(u32, u64)> {
    let (mut pages, mut charged) = (0, 0);
    for slot in 0..maps.info().slots {
        for (_, stock) in maps.stocks(slot)?.iter().filter(|&&(cpu, _)| cpu == of) {
            pages += StockWord(stock.word).charged() + StockWord(stock.uncharge_batch).charged();
            charged += stock.from_stock + stock.missed;
        }
    }
    Ok((pages, charged))
}

/// A busy task on each CPU from 0 to 3.
fn load(cgroup: &TestCgroup) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    for cpu in 0..4 {
        let mut task = Task::start(cgroup, Some(cpu))?;
        task.churn()?;
        tasks.push(task);
    }
    Ok(tasks)
}

/// Meanwhile a thread on CPU 0 drains continuously.
#[test]
fn three_of_four_cpus_go_at_once_and_lose_no_page() -> Result<()> {
    live(|| {
        if !has_four_cpus() {
            return Ok(());
        }
        let cycles = scaled(500);
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let maps = maps()?;
        let index = maps.index_of(engine.show()?.cgroup(cgroup.path())?.id)?;
        let index = index.context("it is not tracked")?;
        let mut tasks = load(&cgroup)?;
        let (stop, drains) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| -> Result<()> {
            let drainer = scope.spawn(|| -> Result<()> {
                pin(0)?;
                let maps = self::maps()?;
                while !stop.load(Relaxed) {
                    drain_cpus(&maps, maps.possible().iter().copied(), index)?;
                    drains.fetch_add(1, Relaxed);
                }
                Ok(())
            });
            let churned = (0..cycles).try_for_each(|cycle| {
                cycle_all(&maps, &tasks).with_context(|| format!("cycle {cycle}"))
            });
            stop.store(true, Relaxed);
            let drained = drainer.join().map_err(|_| anyhow!("the drainer panicked"))?;
            churned.and(drained)
        })?;
        for task in &mut tasks {
            ensure!(task.pause()? > 0, "the load was not on");
        }
        let audit = engine.audit_at_rest::<&str>(&[])?;
        engine.show()?.check()?;
        eprintln!("{cycles} cycles, {drains:?} drains beside: {audit}");
        engine.stop().map(drop)
    })
}

/// Takes all three offline under load, checks that nothing stays on them, and brings them back.
fn cycle_all(maps: &engine::Engine, tasks: &[Task]) -> Result<()> {
    for cpu in GOING {
        // The task lost its affinity when the CPU went offline the last time.
        tasks[cpu as usize].keep_on(cpu)?;
        let (_, before) = stock(maps, cpu)?;
        try_poll_until(SOON, "load on a CPU that goes", || {
            Ok((stock(maps, cpu)?.1 > before).then_some(()))
        })?;
    }
    let gone = thread::scope(|scope| {
        let going = GOING.map(|cpu| scope.spawn(move || CpuOffline::take(cpu)));
        let gone = going.map(|cpu| cpu.join().map_err(|_| anyhow!("a thread panicked"))?);
        gone.into_iter().collect::<Result<Vec<_>>>()
    })?;
    for cpu in GOING {
        try_poll_until(SOON, "the end of a dead CPU's stock", || {
            Ok((stock(maps, cpu)?.0 == 0).then_some(()))
        })?;
    }
    gone.into_iter().try_for_each(CpuOffline::back)
}

/// A CPU without any of the tasks drains what the others have stocked, while they charge.
#[test]
fn a_third_cpu_drains_the_others() -> Result<()> {
    live(|| {
        if !has_four_cpus() {
            return Ok(());
        }
        let tries = scaled(10_000);
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let index = maps()?.index_of(engine.show()?.cgroup(cgroup.path())?.id)?;
        let index = index.context("it is not tracked")?;
        let mut tasks = load(&cgroup)?;
        // No task is left on the draining CPU.
        drop(tasks.remove(3));
        // In a thread of its own, so that this one is not pinned for the next test.
        let drained = thread::scope(|scope| {
            let drainer = scope.spawn(|| -> Result<(u64, u32)> {
                pin(3)?;
                let maps = maps()?;
                let (mut taken, mut found) = (0, 0);
                for _ in 0..tries {
                    let pages: u64 = drain_cpus(&maps, [0, 1, 2], index)?.values().sum();
                    (taken, found) = (taken + pages, found + u32::from(pages > 0));
                }
                Ok((taken, found))
            });
            drainer.join().map_err(|_| anyhow!("the drainer panicked"))
        });
        let (taken, found) = drained??;
        for task in &mut tasks {
            ensure!(task.pause()? > 0, "the load was not on");
        }
        ensure!(found > 0, "there was never anything to take");
        let audit = engine.audit_at_rest::<&str>(&[])?;
        engine.show()?.check()?;
        eprintln!("{tries} drains, {found} of them found {taken} pages: {audit}");
        engine.stop().map(drop)
    })
}
