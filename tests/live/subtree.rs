//! A tracked cgroup is charged for its whole subtree, whoever is named and whenever it was made.

use anyhow::{Result, ensure};
use memstock_tests::{Engine, Task, TestCgroup, live};

const CPU: u32 = 1;
const TOUCHES: u64 = 100;

fn touch(task: &mut Task) -> Result<()> {
    ensure!(task.touch(TOUCHES)? == TOUCHES, "one page is one fault");
    Ok(())
}

/// Exact: the tasks fault on command only.
#[test]
fn descendants_that_are_not_named_are_charged_to_the_nearest_that_is() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let (child, named) = (top.child("child")?, top.child("named")?);
        let below_named = named.child("below")?;
        let mut in_child = Task::start(&child, Some(CPU))?;
        let mut in_below = Task::start(&below_named, Some(CPU))?;
        let engine = Engine::start(["--cgroup", top.path(), "--cgroup", named.path()])?;
        touch(&mut in_child)?;
        touch(&mut in_below)?;

        // Made while the engine runs: its task faults while it starts, too.
        let made_later = child.child("later")?;
        let before = engine.show()?;
        let mut in_later = Task::start(&made_later, Some(CPU))?;
        let started = engine.show()?;
        let (was, is) = (before.cgroup(top.path())?.faults, started.cgroup(top.path())?.faults);
        ensure!(is > was, "a task starts with faults: {was}, {is}");
        touch(&mut in_later)?;

        let show = engine.show()?;
        let faults = |path| Ok::<_, anyhow::Error>(show.cgroup(path)?.faults);
        ensure!(faults(top.path())? == 2 * TOUCHES + (is - was), "{show:#?}");
        ensure!(faults(named.path())? == TOUCHES, "{show:#?}");
        ensure!(show.cgroups.len() == 2, "only what is named is shown: {show:#?}");
        show.check_conservation()?;
        engine.stop().map(drop)
    })
}
