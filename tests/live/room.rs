//! Making room at a limit without killing: page cache is reclaimed, changing a limit drains or is refused, and every
//! hold ends whatever happens.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use memstock_tests::hog::{HogBuilder, size};
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::{Finished, memstock};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, KernelCgroup, PAGE, Task, TestCgroup, kernel_cgroup, live};
use rustix::process::{Pid, Signal, kill_process};

/// The limit in most tests, in pages.
const LIMIT: u64 = 4096;

/// Runs `memstock` with these arguments.
fn run(args: &[&str]) -> Result<Finished> {
    memstock(args)?.finish(3 * SOON)
}

fn succeeds(args: &[&str]) -> Result<String> {
    let finished = run(args)?;
    ensure!(finished.code() == 0, "memstock {args:?}: {finished:?}");
    Ok(finished.stdout)
}

fn kinds(engine: &Engine, kind: &str) -> Result<usize> {
    Ok(engine.events()?.iter().filter(|event| event.kind == kind).count())
}

/// A task writes a file of three times its limit, and has nothing else.
fn page_cache_alone(cgroup: &TestCgroup, kernel: Option<&KernelCgroup>) -> Result<()> {
    let engine = Engine::start(["--cgroup", cgroup.path(), "--limit", &size(LIMIT)])?;
    let dir = tempfile::Builder::new().prefix("memstock-test-").tempdir_in("/var/tmp")?;
    let file = dir.path().join("large");
    let mut task = HogBuilder::pages(3 * LIMIT).file(&file).kernel(kernel).start(cgroup)?;
    task.has_all()?;
    ensure!(fs::metadata(&file)?.len() == 3 * LIMIT * PAGE, "the file is not whole");
    ensure!(task.lives() && kinds(&engine, "oom-kill")? == 0, "{:?}", engine.events()?);
    try_poll_until(SOON, "an event of reclaim", || {
        Ok((kinds(&engine, "reclaim")? > 0).then_some(()))
    })?;
    let show = engine.show()?;
    let memory = &show.cgroup(cgroup.path())?.memory;
    eprintln!(
        "{} reclaims, {} pages above the limit at the most",
        kinds(&engine, "reclaim")?,
        (memory.watermark / PAGE).saturating_sub(LIMIT)
    );
    ensure!(memory.failcnt > 0, "the limit was not met: {memory:?}");
    drop(task);
    engine.stop().map(drop)
}

#[test]
fn page_cache_is_reclaimed_from_open_files() -> Result<()> {
    live(|| page_cache_alone(&TestCgroup::new()?, None))
}

#[test]
fn page_cache_is_reclaimed_by_the_kernels_controller() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::beside(&cgroup)? else {
            skip(&name(), kernel_cgroup::ABSENT);
            return Ok(());
        };
        if !kernel.is_v2() {
            skip(&name(), "memstock does not reclaim through v1 memory cgroups");
            return Ok(());
        }
        page_cache_alone(&cgroup, Some(&kernel))
    })
}

#[test]
fn a_limit_moves_while_the_engine_runs() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let mut task = Task::start(&cgroup, Some(0))?;
        task.touch(1000)?;
        let counter = || -> Result<_> { Ok(engine.show()?.cgroup(cgroup.path())?.memory.clone()) };
        let used = engine.used_at_rest(&cgroup)?;
        // Exactly what is used: the stocks are drained for it.
        succeeds(&["limit", cgroup.path(), "--memory", &size(used)])?;
        let full = counter()?;
        ensure!((full.limit, full.usage) == (Some(used * PAGE), used * PAGE), "{used}: {full:?}");
        // Private memory cannot be reclaimed without swap.
        let refused = run(&["limit", cgroup.path(), "--memory", &size(used - 100)])?;
        ensure!(refused.code() == 125 && refused.stderr.contains("--force"), "{refused:?}");
        ensure!(refused.stderr.trim_end().lines().count() == 1, "{refused:?}");
        ensure!(counter()?.limit == Some(used * PAGE), "the old limit stands");
        succeeds(&["limit", cgroup.path(), "--memory", "max"])?;
        ensure!(counter()?.limit.is_none());
        ensure!(kinds(&engine, "oom-kill")? == 0, "nobody was at a limit");
        // With `--force` it is set anyway, and hit at once.
        succeeds(&["limit", cgroup.path(), "--memory", &size(used - 100), "--force"])?;
        ensure!(counter()?.limit == Some((used - 100) * PAGE));
        // The task may reply before it is killed.
        let _ = task.touch(1);
        try_poll_until(SOON, "the end of the task", || {
            Ok((kinds(&engine, "oom-kill")? == 1).then_some(()))
        })?;
        for (args, code, says) in [
            (vec!["limit", cgroup.path()], 2, "--memory"),
            (vec!["limit", cgroup.path(), "--memory", "12Q"], 2, "12Q"),
            (vec!["limit", "/memstock-no-such", "--memory", "1M"], 122, "memstock-no-such"),
            (vec!["limit", cgroup.path(), "--memsw", "1M"], 2, "--memsw"),
        ] {
            let refused = run(&args)?;
            ensure!(
                refused.code() == code && refused.stderr.contains(says),
                "{args:?}: {refused:?}"
            );
        }
        drop(task);
        engine.stop().map(drop)
    })
}

#[test]
fn memory_and_swap_is_not_limited_below_memory() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let args = ["--cgroup", cgroup.path(), "--limit", "8M", "--memsw-limit"];
        let refused = run(&[&["run", "--seconds", "1"], &args[..], &["4M"]].concat())?;
        ensure!(refused.code() == 2 && refused.stderr.contains("swap"), "{refused:?}");
        let engine = Engine::start(args.into_iter().chain(["16M"]))?;
        let refused = run(&["limit", cgroup.path(), "--memsw", "4M"])?;
        ensure!(refused.code() == 2 && refused.stderr.contains("swap"), "{refused:?}");
        succeeds(&["limit", cgroup.path(), "--memory", "32M", "--memsw", "32M"])?;
        let show = engine.show()?;
        let cgroup = show.cgroup(cgroup.path())?;
        ensure!((cgroup.memory.limit, cgroup.memsw.limit) == (Some(32 << 20), Some(32 << 20)));
        engine.stop().map(drop)
    })
}

#[test]
fn what_can_go_goes() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let dir = tempfile::Builder::new().prefix("memstock-test-").tempdir_in("/var/tmp")?;
        let file = dir.path().join("cached");
        let mut writer = HogBuilder::pages(2000).file(&file).start(&cgroup)?;
        writer.has_all()?;
        let mut holder = Task::start(&cgroup, None)?;
        holder.touch(1000)?;
        let used =
            || -> Result<u64> { Ok(engine.show()?.cgroup(cgroup.path())?.memory.usage / PAGE) };
        let before = used()?;
        let said = succeeds(&["force-empty", cgroup.path()])?;
        eprintln!("{said}");
        let after = used()?;
        ensure!(before >= after + 1900, "{before} pages before, {after} after: {said}");
        ensure!(after >= 1000 && engine.show()?.stocked_pages() == 0, "{after}: {said}");
        ensure!(writer.lives() && kinds(&engine, "oom-kill")? == 0, "nobody is killed for that");
        holder.touch(1)?;
        drop((writer, holder));
        engine.stop().map(drop)
    })
}

/// The cgroup is removed while its task is at its limit, or the limit changes meanwhile: daemon and counters survive.
#[test]
fn a_cgroup_at_its_limit_may_go_and_its_limit_may_move() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let kernel = KernelCgroup::beside(&top)?;
        let engine = Engine::start(["--cgroup", top.path()])?;
        for round in 0..20_u32 {
            let cgroup = top.child("full")?;
            try_poll_until(SOON, "a new cgroup to be tracked", || {
                Ok(engine.show()?.cgroup(cgroup.path()).is_ok().then_some(()))
            })?;
            succeeds(&["limit", cgroup.path(), "--memory", &size(LIMIT)])?;
            let builder = HogBuilder::pages(3 * LIMIT).cpu(round % 2).kernel(kernel.as_ref());
            let mut hog = builder.start(&cgroup)?;
            if round % 2 == 0 {
                // Raises the limit at some moment before, during or after the kill.
                let _ = run(&["limit", cgroup.path(), "--memory", &size(2 * LIMIT)])?;
            }
            hog.was_killed().with_context(|| format!("round {round}"))?;
            let dir = cgroup.dir().to_owned();
            poll_until(SOON, "the end of the cgroup", || fs::remove_dir(&dir).ok())?;
        }
        // Pages may linger in the kernel's batches, as page cache that a task read first, or because their free was
        // missed.
        try_poll_until(3 * SOON, "the counters of the removed to go", || {
            memstock_tests::lru::drain()?;
            kernel.as_ref().map_or(Ok(()), KernelCgroup::force_empty)?;
            engine.heal()?;
            Ok((engine.show()?.cgroups.len() == 1).then_some(()))
        })?;
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// The daemon dies while it holds a subtree, or just before or after: within a second, no task is held.
#[test]
#[ignore = "long"]
fn a_dead_daemon_holds_nobody() -> Result<()> {
    /// How long the guard may take from the daemon's death on.
    const SECOND: Duration = Duration::from_secs(1);
    live(|| {
        let mut held = 0;
        for round in 0..8_u64 {
            let cgroup = TestCgroup::new()?;
            let mut engine = Engine::start(["--cgroup", cgroup.path(), "--limit", &size(LIMIT)])?;
            let freeze = cgroup.dir().join("cgroup.freeze");
            // With private memory, since page cache causes no hold.
            let mut hog = HogBuilder::pages(4 * LIMIT).cpu((round % 2) as u32).start(&cgroup)?;
            // Waits until it is held, has ended, or a second is over.
            let start = Instant::now();
            let is_held = || fs::read_to_string(&freeze).is_ok_and(|text| text.trim() == "1");
            while start.elapsed() < SECOND && !is_held() && hog.status()?.is_none() {}
            let seen = is_held();
            engine.process().signal(Signal::KILL)?;
            engine.process().wait(SOON)?;
            held += u32::from(seen);
            poll_until(SECOND, "the tasks to be let go", || (!is_held()).then_some(()))?;
            // It was thawed, or killed before the daemon was.
            if hog.has_all().is_err() {
                hog.was_killed().with_context(|| format!("round {round}"))?;
            }
            if round % 2 == 0 {
                drop(hog);
                succeeds(&["stop"])?;
            } else {
                // It may be above its limit now. The next daemon finds that, and every page.
                engine.adopt(["--observe"])?;
                engine.audit_at_rest::<&str>(&[])?;
                drop(hog);
                engine.stop()?;
            }
            no_guard()?;
        }
        eprintln!("held at the daemon's death: {held} of 8 times");
        ensure!(held > 0, "the daemon never died while it held anybody");
        Ok(())
    })
}

/// If the guard dies, the daemon starts another one.
#[test]
fn a_guard_that_dies_is_replaced() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path(), "--limit", &size(LIMIT)])?;
        let guard = |but| {
            try_poll_until(SOON, "a guard", || Ok(guards()?.into_iter().find(|&pid| pid != but)))
        };
        let killed = guard(0)?;
        kill_process(Pid::from_raw(killed).context("a process")?, Signal::KILL)?;
        guard(killed)?;
        engine.stop().map(drop)
    })
}

/// Waits until no guard is left: it ends with the daemon it guards.
fn no_guard() -> Result<()> {
    try_poll_until(SOON, "the end of the guard", || Ok(guards()?.is_empty().then_some(())))
}

/// The guards of this host that are alive.
fn guards() -> Result<Vec<i32>> {
    let guard = |dir: fs::DirEntry| {
        let line = fs::read(dir.path().join("cmdline")).unwrap_or_default();
        let pid = dir.file_name().to_str()?.parse().ok()?;
        line.ends_with(b"memstock\0guard\0").then_some(pid)
    };
    Ok(fs::read_dir("/proc")?.flatten().filter_map(guard).collect())
}
