//! A tracked cgroup is tracked with its whole subtree, including cgroups that are made and removed later.

use anyhow::{Result, ensure};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::{Engine, Show, Task, TestCgroup, live};

const CPU: u32 = 1;
const TOUCHES: u64 = 100;

fn touch(task: &mut Task) -> Result<()> {
    ensure!(task.touch(TOUCHES)? == TOUCHES, "one page is one fault");
    Ok(())
}

/// Waits until the cgroup is tracked.
fn tracked(engine: &Engine, cgroup: &TestCgroup) -> Result<Show> {
    try_poll_until(SOON, "a new cgroup to be tracked", || {
        let show = engine.show()?;
        Ok(show.cgroup(cgroup.path()).is_ok().then_some(show))
    })
}

/// Exact, since the tasks fault only on command.
#[test]
fn descendants_have_figures_of_their_own() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let (child, named) = (top.child("child")?, top.child("named")?);
        let below_named = named.child("below")?;
        let mut in_child = Task::start(&child, Some(CPU))?;
        let mut in_below = Task::start(&below_named, Some(CPU))?;
        let engine = Engine::start(["--cgroup", top.path(), "--cgroup", named.path()])?;
        // Cgroups that are not named are registered a moment after the engine answers.
        tracked(&engine, &child)?;
        tracked(&engine, &below_named)?;
        touch(&mut in_child)?;
        touch(&mut in_below)?;

        // Made while the engine runs, the lower one before the daemon can know of the upper one.
        let upper = child.child("upper")?;
        let lower = upper.child("lower")?;
        tracked(&engine, &lower)?;
        let mut in_lower = Task::start(&lower, Some(CPU))?;
        let started = engine.show()?.cgroup(lower.path())?.faults();
        ensure!(started > 0, "a task starts with faults");
        touch(&mut in_lower)?;

        let show = engine.show()?;
        for (cgroup, faults, parent) in [
            (&top, 0, None),
            (&child, TOUCHES, Some(&top)),
            (&named, 0, Some(&top)),
            (&below_named, TOUCHES, Some(&named)),
            (&upper, 0, Some(&child)),
            (&lower, started + TOUCHES, Some(&upper)),
        ] {
            let seen = show.cgroup(cgroup.path())?;
            let parent = parent.map(|parent| show.cgroup(parent.path())).transpose()?;
            ensure!(seen.faults() == faults, "{faults} faults: {seen:#?}");
            ensure!(seen.parent_id == parent.map(|parent| parent.id), "{show:#?}");
        }
        show.check()?;

        // A removed cgroup without pages disappears.
        drop(in_lower);
        drop(lower);
        try_poll_until(SOON, "the counter of a removed cgroup to be freed", || {
            Ok((engine.show()?.cgroups.len() == 5).then_some(()))
        })?;
        engine.show()?.check()?;
        engine.stop().map(drop)
    })
}
