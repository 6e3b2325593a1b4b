//! What a CPU remembers of a task's cgroup is never used for another task or another cgroup.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use memstock_tests::workload::cpus::pin;
use memstock_tests::{Engine, Task, TestCgroup, cgroup, live, scaled};

const CPU: u32 = 1;
const OTHER_CPU: u32 = 0;

fn move_to(dir: &Path, task: &Task) -> Result<()> {
    fs::write(dir.join("cgroup.procs"), task.id().to_string())
        .with_context(|| format!("moving a task to {}", dir.display()))
}

/// A moved task is charged to its new cgroup from its next fault on. Exact, since it faults only on command, and waits
/// for one while it is moved.
#[test]
fn a_moved_task_is_charged_where_it_is() -> Result<()> {
    const MOVES: u64 = 200;
    const TOUCHES: u64 = 3;
    live(|| {
        let (a, b) = (TestCgroup::new()?, TestCgroup::new()?);
        let outside = cgroup::mount()?;
        let mut task = Task::start(&a, Some(CPU))?;
        let engine = Engine::start(["--cgroup", a.path(), "--cgroup", b.path()])?;
        for _ in 0..MOVES {
            for dir in [a.dir(), b.dir(), &outside] {
                move_to(dir, &task)?;
                ensure!(task.touch(TOUCHES)? == TOUCHES, "one page is one fault");
            }
        }
        let show = engine.show()?;
        for path in [a.path(), b.path()] {
            let cgroup = show.cgroup(path)?;
            ensure!(cgroup.faults() == MOVES * TOUCHES, "{cgroup:#?}");
        }
        show.check()?;
        engine.stop().map(drop)
    })
}

/// A new task can get the kernel stack of one that has just died on the same CPU, and CPUs identify tasks by their
/// stack. While only `b` has children, nothing may be charged to `a`.
#[test]
fn a_new_task_is_not_taken_for_a_dead_one() -> Result<()> {
    const ROUNDS: u32 = 300;
    live(|| {
        let (a, b) = (TestCgroup::new()?, TestCgroup::new()?);
        let mut on_a = Task::start(&a, Some(CPU))?;
        let mut on_b = Task::start(&b, Some(CPU))?;
        let engine = Engine::start(["--cgroup", a.path(), "--cgroup", b.path()])?;
        // The test itself, and the commands that it runs, stay off the tested CPU.
        pin(OTHER_CPU)?;
        for round in 0..scaled(ROUNDS) {
            on_a.ask("spawn 1")?;
            let before = engine.show()?.cgroup(a.path())?.faults();
            on_b.ask("spawn 1")?;
            let after = engine.show()?.cgroup(a.path())?.faults();
            ensure!(after == before, "round {round}: {} faults of the dead", after - before);
        }
        engine.stop().map(drop)
    })
}
