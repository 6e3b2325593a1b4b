//! A moved task leaves its pages charged to the old cgroup, as in the kernel; only what it allocates from then on is
//! charged to the new one.

use anyhow::{Result, ensure};
use memstock_tests::audit::beside;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live::{live, name};
use memstock_tests::load::migrate;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, KernelCgroup, Task, TestCgroup, cgroup, lru};

/// Pages that the cgroup uses, without those of its descendants.
fn used(engine: &Engine, cgroup: &TestCgroup) -> Result<u64> {
    let show = engine.show()?;
    show.check()?;
    Ok(show.cgroup(cgroup.path())?.used_pages())
}

/// Exact: the task gets and gives back only what it is told to, and no page tables.
#[test]
#[ignore = "long"]
fn pages_stay_with_the_cgroup_that_was_charged() -> Result<()> {
    const ROUNDS: u64 = 20;
    live(|| {
        let (a, b) = (TestCgroup::new()?, TestCgroup::new()?);
        let outside = cgroup::mount()?;
        let engine = Engine::start(["--cgroup", a.path(), "--cgroup", b.path()])?;
        let mut task = Task::start(&a, Some(1))?;
        let own = engine.used_at_rest(&a)?;
        for round in 1..=ROUNDS {
            let (in_a, in_b) = (100 + round, 50 + 3 * round);
            let expect = |more_in_a: u64, in_b: u64| -> Result<()> {
                let found = (used(&engine, &a)?, used(&engine, &b)?);
                let expected = (own + more_in_a, in_b);
                ensure!(found == expected, "round {round}: {found:?} pages, not {expected:?}");
                Ok(())
            };
            task.touch(in_a)?;
            expect(in_a, 0)?;
            migrate(task.id(), b.dir())?;
            expect(in_a, 0)?;
            task.touch(in_b)?;
            expect(in_a, in_b)?;
            migrate(task.id(), &outside)?;
            task.touch(30)?;
            expect(in_a, in_b)?;
            // Each page is uncharged where it was charged, wherever the task is now.
            task.ask("drop")?;
            lru::drain()?;
            expect(0, 0)?;
            migrate(task.id(), a.dir())?;
        }
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// In both hierarchies at once, page by page: huge pages, file pages, and others.
#[test]
#[ignore = "long"]
fn the_kernel_leaves_the_same_pages_behind() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::beside(&top)? else {
            skip(&name(), ABSENT);
            return Ok(());
        };
        let (a, b) = (top.child("a")?, top.child("b")?);
        let (kernel_a, kernel_b) = (kernel.child("a")?, kernel.child("b")?);
        let engine = Engine::start(["--cgroup", top.path()])?;
        try_poll_until(SOON, "all cgroups to be tracked", || {
            Ok((engine.show()?.cgroups.len() == 3).then_some(()))
        })?;
        for mode in [Mode::AnonWrite, Mode::HugePartial, Mode::TmpfsWrite, Mode::ForkWrite] {
            let mut holder = Holder::of(mode).cgroup(&a).kernel(&kernel_a).start()?;
            let start = agreed(&engine, &top, &kernel, [&a, &b])?;
            let Ok(promised) = holder.get() else {
                skip(&name(), &format!("{} is not available", mode.name()));
                continue;
            };
            let held = agreed(&engine, &top, &kernel, [&a, &b])?;
            ensure!(held[0] >= start[0] + promised, "{}: {start:?} {held:?}", mode.name());
            migrate(holder.id(), b.dir())?;
            migrate(holder.id(), kernel_b.dir())?;
            let moved = agreed(&engine, &top, &kernel, [&a, &b])?;
            ensure!(moved[0] == held[0], "{}: {held:?} {moved:?}", mode.name());
            holder.give()?;
            let given = agreed(&engine, &top, &kernel, [&a, &b])?;
            ensure!(given[0] <= start[0], "{}: {start:?} {given:?}", mode.name());
            holder.get()?;
            let again = agreed(&engine, &top, &kernel, [&a, &b])?;
            ensure!(again[1] >= given[1] + promised, "{}: {given:?} {again:?}", mode.name());
            ensure!(again[0] <= given[0], "{}: {given:?} {again:?}", mode.name());
        }
        engine.stop().map(drop)
    })
}

/// The user pages of two cgroups, once both sides agree on each page.
fn agreed(
    engine: &Engine,
    top: &TestCgroup,
    kernel: &KernelCgroup,
    cgroups: [&TestCgroup; 2],
) -> Result<[u64; 2]> {
    try_poll_until(SOON, "the two sides to agree", || {
        lru::drain()?;
        let audit = engine.audit(beside(top, kernel))?;
        if audit.exact {
            audit.check()?;
        }
        let mut user = [0; 2];
        for (user, cgroup) in user.iter_mut().zip(cgroups) {
            let counts = audit.cgroup(cgroup.path())?.kernel.map(|kernel| kernel.counts);
            *user = counts.map_or(0, |counts| counts.both);
        }
        if audit.exact && audit.agreement()?.counts.different() == 0 {
            return Ok(Some(user));
        }
        eprintln!("not yet: {audit}");
        engine.heal()?;
        Ok(None)
    })
}
