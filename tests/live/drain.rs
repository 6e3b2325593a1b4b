//! A drain gives back what was stocked, to the page, whatever runs meanwhile.

use anyhow::{Result, ensure};
use memstock_tests::hotplug::{CpuOffline, can_go_offline};
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::show::{Drained, Slot};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, PAGE, Task, TestCgroup, live, lru};

/// Waits until each of these cgroups has faulted `more` times since now: the load is on.
fn wait_for_load(engine: &Engine, cgroups: &[&TestCgroup], more: u64) -> Result<()> {
    let start = engine.show()?;
    try_poll_until(SOON, "the load", || {
        let now = engine.show()?;
        for cgroup in cgroups {
            let path = cgroup.path();
            if now.cgroup(path)?.faults < start.cgroup(path)?.faults + more {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

/// Before = after + returned, for the cgroup that is drained and for its parent; nobody else
/// moves. Exact, since nothing runs between the samples.
#[test]
fn what_is_given_back_is_what_the_usage_falls_by() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let (a, b) = (top.child("a")?, top.child("b")?);
        let mut tasks = [Task::start(&a, Some(0))?, Task::start(&b, Some(1))?];
        let paths = [top.path(), a.path(), b.path()];
        let mut args = vec!["--batch", "1024"];
        args.extend(paths.iter().flat_map(|path| ["--cgroup", path]));
        let engine = Engine::start(args)?;
        let mut returned_in_all = 0;
        for round in 0..10 {
            for task in &mut tasks {
                // More than a batch is stocked or in the uncharge batch when they are given back.
                task.touch(700 + 100 * round)?;
                task.ask("drop")?;
            }
            // Or pages would be freed while we look.
            lru::drain()?;
            let before = engine.show()?;
            before.check()?;

            let one = engine.drain(["--cgroup", a.path()])?;
            let between = engine.show()?;
            ensure!(one.nr_pages * PAGE == before.cgroup(a.path())?.stocked, "{one:?} {before:#?}");
            for (path, fell_by) in
                [(top.path(), one.nr_pages), (a.path(), one.nr_pages), (b.path(), 0)]
            {
                let (was, is) = (before.cgroup(path)?, between.cgroup(path)?);
                ensure!(
                    was.memory.usage == is.memory.usage + fell_by * PAGE,
                    "{path} gave back {fell_by} pages: {was:#?} {is:#?}"
                );
                ensure!(was.memory.watermark == is.memory.watermark, "a drain lowers no watermark");
            }

            let rest = engine.drain::<&str>([])?;
            let after = engine.show()?;
            ensure!(rest.nr_pages == between.stocked_pages(), "{rest:?} {between:#?}");
            for cpu in &between.cpus {
                let unused = |slot: &Slot| slot.nr_pages + slot.uncharge_pages;
                let stocked: u64 = cpu.slots.iter().map(unused).sum();
                ensure!(rest.from_cpu(cpu.cpu) == stocked, "{rest:?} {cpu:#?}");
            }
            ensure!(after.stocked_pages() == 0, "everything was drained: {after:#?}");
            after.check()?;
            returned_in_all += one.nr_pages + rest.nr_pages;
        }
        ensure!(returned_in_all > 0, "there was never anything to give back");
        engine.stop().map(drop)
    })
}

#[test]
fn ten_thousand_drains_lose_no_page() -> Result<()> {
    const BATCH: u64 = 32;
    const REPEAT: &str = "10000";
    live(|| {
        let (a, b) = (TestCgroup::new()?, TestCgroup::new()?);
        let mut tasks = [Task::start(&a, Some(0))?, Task::start(&b, Some(1))?];
        let engine = Engine::start(["--cgroup", a.path(), "--cgroup", b.path()])?;
        for task in &mut tasks {
            task.churn()?;
        }
        wait_for_load(&engine, &[&a, &b], 1_000)?;
        let before = engine.show()?;
        let drained = memstock(["drain", "--repeat", REPEAT, "--json"])?.finish(6 * SOON)?;
        let during = engine.show()?;
        for task in &mut tasks {
            task.pause()?;
        }
        ensure!(drained.code() == 0, "{drained:?}");
        let drained = Drained::parse(&drained.stdout)?;
        for path in [a.path(), b.path()] {
            // 10,000 drains of two CPUs are 20,000 system calls: far more than 1,000 faults long.
            let (start, end) = (before.cgroup(path)?.faults, during.cgroup(path)?.faults);
            ensure!(end > start + 1_000, "{path} was idle: {start} to {end} faults");
        }

        // The kernel frees page tables a grace period after they were unmapped.
        let at_rest = try_poll_until(SOON, "an exact audit", || {
            let audit = engine.audit::<&str>([])?;
            Ok(audit.exact.then_some(audit))
        });
        at_rest?.check()?;
        let show = engine.show()?;
        show.check()?;
        // The kernel half counts every time that a drain took something, and took at most a batch.
        let drains: u64 = show.cpus.iter().map(|cpu| cpu.drains).sum();
        ensure!(drains > 100, "the drains found nothing: {show:#?}");
        ensure!(drained.nr_pages <= drains * BATCH, "{drained:?} {show:#?}");
        eprintln!("{drains} drains found {} pages", drained.nr_pages);
        engine.stop().map(drop)
    })
}

/// A CPU that is gone keeps its stock; a drain from another CPU gets it.
#[test]
fn a_dead_cpus_stock_is_given_back() -> Result<()> {
    if !can_go_offline(1) {
        skip(&name(), "CPU 1 cannot be taken offline here");
        return Ok(());
    }
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, Some(1))?;
        let engine = Engine::start(["--cgroup", cgroup.path(), "--batch", "100"])?;
        // It then waits, and does not run where its affinity has been broken.
        task.touch(1)?;
        let before = engine.show()?;
        ensure!(before.cpu(1)?.slots[0].nr_pages == 99, "{before:#?}");
        ensure!(before.stocked_pages() == 99, "{before:#?}");

        let offline = CpuOffline::take(1)?;
        let show = engine.show()?;
        ensure!(!show.cpu(1)?.online && show.cpu(0)?.online, "{show:#?}");
        ensure!(show.stocked_pages() == 99, "{show:#?}");
        show.check()?;
        engine.drain(["--cpu", "1"])?;
        let after = engine.show()?;
        ensure!(after.stocked_pages() == 0, "{after:#?}");
        after.check()?;
        offline.back()?;
        ensure!(engine.show()?.cpu(1)?.online, "it is back");
        engine.stop().map(drop)
    })
}

/// For people: a line a CPU and a total.
#[test]
fn the_text_has_a_line_a_cpu_and_a_total() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, Some(1))?;
        let engine = Engine::start(["--cgroup", cgroup.path(), "--batch", "33"])?;
        task.touch(1)?;
        let text = memstock(["drain"])?.finish(SOON)?;
        ensure!(text.code() == 0 && text.stderr.is_empty(), "{text:?}");
        let lines: Vec<&str> = text.stdout.lines().collect();
        ensure!(lines.len() == engine.show()?.cpus.len() + 1, "{text:?}");
        for word in ["0", "1"] {
            let found = lines.iter().any(|line| line.starts_with(&format!("cpu {word}:")));
            ensure!(found, "no line for CPU {word}: {text:?}");
        }
        // 32 pages of 4 KiB, from CPU 1 and in all.
        let whole = lines.iter().filter(|line| line.contains("128")).count();
        ensure!(whole == 2 && lines[lines.len() - 1].contains("total"), "{text:?}");
        engine.stop().map(drop)
    })
}
