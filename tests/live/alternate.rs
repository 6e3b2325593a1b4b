//! Cgroups that share a CPU drain each other's stock, and the stocks stay within their bound.

use anyhow::{Result, ensure};
use memstock_tests::show::Slot;
use memstock_tests::{Engine, PAGE, Task, TestCgroup, live, scaled};

const CPU: u32 = 1;
const BATCH: u64 = 32;

/// Each touch is one fault of a cgroup that has no stock: a miss, which first drains the other's 31 pages. No
/// tolerance, since the tasks fault only on command.
#[test]
fn two_cgroups_drain_each_other_at_each_switch() -> Result<()> {
    const TURNS: u64 = 100;
    live(|| {
        let (a, b) = (TestCgroup::new()?, TestCgroup::new()?);
        let mut on_a = Task::start(&a, Some(CPU))?;
        let mut on_b = Task::start(&b, Some(CPU))?;
        let engine = Engine::start(["--cgroup", a.path(), "--cgroup", b.path()])?;
        for turn in 1..=TURNS {
            ensure!(on_a.touch(1)? == 1 && on_b.touch(1)? == 1, "one page is one fault");
            if turn % 25 != 0 {
                continue;
            }
            let show = engine.show()?;
            let cpu = show.cpu(CPU)?;
            let touches = 2 * turn;
            // The first touch found an empty stock; each later one switched.
            let switches = touches - 1;
            ensure!(cpu.drains == switches, "{switches} switches: {cpu:#?}");
            let counts = (cpu.from_stock_pages, cpu.missed(), cpu.refills);
            ensure!(counts == (0, touches, touches), "{cpu:#?}");
            for path in [a.path(), b.path()] {
                let cgroup = show.cgroup(path)?;
                ensure!((cgroup.faults(), cgroup.missed()) == (turn, turn), "{cgroup:#?}");
            }
            let (a, b) = (show.cgroup(a.path())?, show.cgroup(b.path())?);
            // b came last and has the stock; a has only the pages it uses.
            ensure!(a.stocked == 0 && a.memory.usage == turn * PAGE, "{a:#?}");
            ensure!(b.stocked == (BATCH - 1) * PAGE, "{b:#?}");
            ensure!(b.memory.usage == (turn + BATCH - 1) * PAGE, "{b:#?}");
            ensure!(cpu.slots.len() == 1 && cpu.slots[0].cgroup_id == Some(b.id), "{cpu:#?}");
            show.check()?;
        }
        engine.stop().map(drop)
    })
}

/// The patch's promise: the number of stocked pages depends on the CPUs, not on the cgroups.
///
/// A sample reads each stock word once, so the bound holds for every sample, although the stocks
/// are not read at the same moment.
fn stocks_stay_within_their_bound(slots: u64) -> Result<()> {
    live(|| {
        let cgroups = [TestCgroup::new()?, TestCgroup::new()?, TestCgroup::new()?];
        let mut tasks = Vec::new();
        for cgroup in &cgroups {
            for cpu in [0, 1] {
                tasks.push(Task::start(cgroup, Some(cpu))?);
            }
        }
        let slots_text = slots.to_string();
        let mut args = vec!["--slots", &slots_text];
        args.extend(cgroups.iter().flat_map(|cgroup| ["--cgroup", cgroup.path()]));
        let engine = Engine::start(args)?;
        for task in &mut tasks {
            task.churn()?;
        }
        let first = engine.show()?;
        let mut highest = 0;
        for _ in 0..scaled(100) {
            let show = engine.show()?;
            for cpu in &show.cpus {
                ensure!(u64::try_from(cpu.slots.len())? == slots, "{cpu:#?}");
                let is_bound = |slot: &Slot| slot.nr_pages <= BATCH && slot.uncharge_pages < BATCH;
                ensure!(cpu.slots.iter().all(is_bound), "{cpu:#?}");
            }
            let online = u64::try_from(show.cpus.iter().filter(|cpu| cpu.online).count())?;
            let stocked = show.stocked_pages();
            // A stock and an uncharge batch.
            ensure!(stocked <= online * 2 * BATCH * slots, "{stocked} pages stocked: {show:#?}");
            let by_cgroup: u64 = show.cgroups.iter().map(|cgroup| cgroup.stocked).sum();
            ensure!(by_cgroup == stocked * PAGE, "{by_cgroup} bytes, {stocked} pages: {show:#?}");
            highest = highest.max(stocked);
        }
        let last = engine.show()?;
        for task in &mut tasks {
            task.pause()?;
        }
        // Make sure that the engine was not idle.
        for cpu in [0, 1] {
            let (first, last) = (first.cpu(cpu)?, last.cpu(cpu)?);
            ensure!(
                last.from_stock_pages > first.from_stock_pages + u64::from(scaled(10_000)),
                "CPU {cpu} was idle: {first:?} {last:?}"
            );
            ensure!(slots > 1 || last.drains > first.drains, "no switch: {first:?} {last:?}");
        }
        ensure!(highest > 0, "nothing was ever stocked");
        engine.show()?.check()?;
        engine.stop().map(drop)
    })
}

#[test]
fn one_slot_stays_within_its_bound() -> Result<()> {
    stocks_stay_within_their_bound(1)
}

#[test]
fn four_slots_stay_within_their_bound() -> Result<()> {
    stocks_stay_within_their_bound(4)
}
