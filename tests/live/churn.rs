//! Cgroups that are made, used and removed: ten thousand of them, and some whose memory outlives them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use memstock_tests::audit::beside;
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::show::Show;
use memstock_tests::skip::skip;
use memstock_tests::task::enter_dir;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, KernelCgroup, Task, TestCgroup, lru, scaled};

/// Cgroups to make, use and remove, by two threads at once.
const CGROUPS: u32 = 10_000;
/// One in this many of a thread's cgroups is checked while it is used.
const SAMPLED: u32 = 100;

/// Makes a cgroup, runs a whole program in it, and removes it.
fn come_and_go(dir: &Path, kernel: Option<&KernelCgroup>) -> Result<()> {
    // Started directly: a shell would cost ten times as much.
    run_and_remove(Command::new("/bin/true"), dir, kernel)
}

fn run_and_remove(mut command: Command, dir: &Path, kernel: Option<&KernelCgroup>) -> Result<()> {
    fs::create_dir(dir).with_context(|| dir.display().to_string())?;
    if let Some(kernel) = kernel {
        enter_dir(&mut command, kernel.dir())?;
    }
    enter_dir(&mut command, dir)?;
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    gone(dir)
}

/// Removes a cgroup whose last task has just been reaped. Polls, since some kernels release it a little later.
fn gone(dir: &Path) -> Result<()> {
    let what = format!("the end of {}", dir.display());
    poll_until(SOON, &what, || fs::remove_dir(dir).ok())
}

/// Checks that a cgroup is charged exactly the pages that its task touches, whatever happens in other cgroups.
fn sample(
    engine: &Engine,
    parent: &TestCgroup,
    kernel: Option<&KernelCgroup>,
    name: &str,
    nr_pages: u64,
) -> Result<()> {
    let cgroup = parent.child(name)?;
    // Until it is registered, its pages are charged to its parent.
    try_poll_until(SOON, "a new cgroup to be tracked", || {
        Ok(engine.show()?.cgroup(cgroup.path()).is_ok().then_some(()))
    })?;
    let mut task = match kernel {
        Some(kernel) => Task::start_in_both(&cgroup, kernel, None)?,
        None => Task::start(&cgroup, None)?,
    };
    let before = engine.used_at_rest(&cgroup)?;
    // Others may drain this cgroup's stocks while a sample is read, usage first, which then looks too large by a
    // batch. That is temporary, but a wrongly charged page stays.
    let uses = |nr_pages: u64, what: &str| {
        try_poll_until(SOON, &format!("{name} to use {nr_pages} pages {what}"), || {
            let used = engine.show()?.cgroup(cgroup.path())?.used_pages();
            Ok((used == nr_pages).then_some(()))
        })
    };
    task.touch(nr_pages)?;
    uses(before + nr_pages, "when its task has touched them")?;
    task.ask("drop")?;
    lru::drain()?;
    uses(before, "when they were given back")?;
    drop(task);
    gone(cgroup.dir())
}

/// One of the two threads' share.
fn churn(
    engine: &Engine,
    parent: &TestCgroup,
    kernel: Option<&KernelCgroup>,
    thread: u32,
) -> Result<()> {
    for number in 0..scaled(CGROUPS) / 2 {
        let name = format!("{thread}-{number}");
        if number % SAMPLED == 0 {
            sample(engine, parent, kernel, &name, u64::from(1 + number % 997))?;
        } else {
            come_and_go(&parent.dir().join(&name), kernel).with_context(|| name)?;
        }
    }
    Ok(())
}

/// Drains, heals and reclaims until `done` accepts a sample. A counter is freed with its last page, and pages may
/// linger: in the kernel's batches, by a missed free until the page is allocated again, or as page cache (a block
/// of the file system that the task happened to read first) until reclaim.
fn settled(
    engine: &Engine,
    kernel: Option<&KernelCgroup>,
    what: &str,
    done: impl Fn(&Show) -> bool,
) -> Result<Show> {
    let mut last = None;
    let settled = try_poll_until(3 * SOON, what, || {
        engine.drain::<&str>([])?;
        let show = engine.show()?;
        if done(&show) {
            return Ok(Some(show));
        }
        last = Some(show);
        lru::drain()?;
        kernel.map_or(Ok(()), KernelCgroup::force_empty)?;
        engine.heal()?;
        Ok(None)
    });
    settled.with_context(|| format!("{last:#?}"))
}

#[test]
#[ignore = "long"]
fn ten_thousand_cgroups_leave_nothing() -> Result<()> {
    live(|| {
        let parent = TestCgroup::new()?;
        let kernel = KernelCgroup::beside(&parent)?;
        // Read the program into the cache first, so that its pages are not charged to a child.
        Command::new("/bin/true").status().context("starting /bin/true")?;
        let engine = Engine::start(["--cgroup", parent.path()])?;
        let before = engine.show()?;
        ensure!(before.cgroup(parent.path())?.memory.usage == 0, "{before:#?}");
        thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..2)
                .map(|number| {
                    let (engine, parent, kernel) = (&engine, &parent, kernel.as_ref());
                    scope.spawn(move || churn(engine, parent, kernel, number))
                })
                .collect();
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            }
            Ok(())
        })?;
        let soon = engine.show()?;
        eprintln!("{} cgroups left when the last one was removed", soon.cgroups.len());
        let nothing = |show: &Show| {
            let usage = show.cgroup(parent.path()).map(|cgroup| cgroup.memory.usage);
            show.cgroups.len() == 1 && usage.is_ok_and(|usage| usage == 0)
        };
        let show = settled(&engine, kernel.as_ref(), "the end of all counters but one", nothing)?;
        ensure!(show.stocked_pages() == 0, "a stock of nobody's: {show:#?}");
        show.check()?;
        let kernel = kernel.as_ref().map(|kernel| beside(&parent, kernel));
        let audit = engine.audit_at_rest(kernel.as_ref().map_or(&[][..], |args| args))?;
        eprintln!("{audit}; {:?}", show.loss);
        ensure!(audit.owned == 0 && audit.cgroups.len() == 1, "{audit:#?}");
        engine.stop().map(drop)
    })
}

/// Two nested cgroups, each with a file in memory that outlives it. When the cgroups are removed, the pages move to the
/// cgroup above, and the counters are freed.
#[test]
#[ignore = "long"]
fn pages_of_removed_cgroups_are_those_of_the_one_above() -> Result<()> {
    const PAGES: [u32; 2] = [700, 300];
    live(|| {
        let top = TestCgroup::new()?;
        let kernel = KernelCgroup::beside(&top)?;
        let upper = top.child("upper")?;
        let lower = upper.child("lower")?;
        let engine = Engine::start(["--cgroup", top.path()])?;
        try_poll_until(SOON, "all cgroups to be tracked", || {
            Ok((engine.show()?.cgroups.len() == 3).then_some(()))
        })?;
        let mut holders = Vec::new();
        for (cgroup, pages) in [&upper, &lower].into_iter().zip(PAGES) {
            let builder = Holder::of(Mode::TmpfsWrite).pages(pages).cgroup(cgroup);
            let builder = match &kernel {
                Some(kernel) => builder.kernel(kernel),
                None => builder,
            };
            let mut holder = builder.start()?;
            holder.get()?;
            holder.kill()?;
            holders.push(holder);
        }
        // A page of the pipe to each holder stays until the pipe is closed.
        let held = |pages: &[u32]| {
            let pages: u64 = pages.iter().copied().map(u64::from).sum();
            pages..=pages + PAGES.len() as u64
        };
        let before = engine.show()?.cgroup(top.path())?.memory.watermark;
        let dirs: [PathBuf; 2] = [lower.dir().into(), upper.dir().into()];
        dirs.iter().try_for_each(|dir| gone(dir))?;
        let only_top = |show: &Show| show.cgroups.len() == 1;
        let show = settled(&engine, kernel.as_ref(), "counters that are free", only_top)?;
        show.check()?;
        let left = show.cgroup(top.path())?;
        ensure!(held(&PAGES).contains(&left.used_pages()), "not what the files have: {show:#?}");
        ensure!(left.memory.watermark == before, "nothing was charged for it: {show:#?}");
        engine.audit_at_rest::<&str>(&[])?;
        drop(holders.remove(0));
        let lowers = |show: &Show| {
            show.cgroup(top.path()).is_ok_and(|top| held(&PAGES[1..]).contains(&top.used_pages()))
        };
        settled(&engine, kernel.as_ref(), "the end of the upper one's pages", lowers)?;
        drop(holders);
        let none = |show: &Show| show.cgroup(top.path()).is_ok_and(|top| top.used_pages() == 0);
        settled(&engine, kernel.as_ref(), "the end of all", none)?;
        let audit = engine.audit_at_rest::<&str>(&[])?;
        ensure!(audit.owned == 0, "{audit:#?}");
        engine.stop().map(drop)
    })
}

/// The same for pages that the engine adopted by the kernel's own controller.
#[test]
fn adopted_pages_of_a_removed_cgroup_are_those_of_the_one_above() -> Result<()> {
    const PAGES: u32 = 700;
    live(|| {
        let top = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::beside(&top)? else {
            skip(&name(), "only the kernel's own controller knows whose the pages of a file are");
            return Ok(());
        };
        let cgroup = top.child("removed")?;
        // On v2 it is the same cgroup.
        let kernel = if kernel.is_v2() { kernel.child("removed")? } else { kernel };
        let builder = Holder::of(Mode::TmpfsWrite).pages(PAGES).cgroup(&cgroup).kernel(&kernel);
        let mut holder = builder.start()?;
        holder.get()?;
        let engine = Engine::start_adopting(["--cgroup", top.path()])?;
        try_poll_until(SOON, "its pages to be adopted", || {
            let show = engine.show()?;
            let used = show.cgroup(cgroup.path()).map_or(0, |cgroup| cgroup.used_pages());
            Ok((used >= PAGES.into() && !engine.stdout()?.is_empty()).then_some(()))
        })?;
        holder.kill()?;
        gone(cgroup.dir())?;
        let only_top = |show: &Show| show.cgroups.len() == 1;
        let show = settled(&engine, None, "a counter that is free", only_top)?;
        show.check()?;
        let used = show.cgroup(top.path())?.used_pages();
        ensure!(used >= PAGES.into(), "they are those of the one above: {used}");
        engine.audit_at_rest::<&str>(&[])?;
        drop(holder);
        engine.stop().map(drop)
    })
}

/// Jobs that each leave a page in memory, in a cgroup that is then removed, occupy no counters.
#[test]
#[ignore = "long"]
fn jobs_that_leave_a_page_leave_no_counter() -> Result<()> {
    // More jobs than counters.
    const JOBS: u32 = 17_000;
    live(|| {
        let jobs = scaled(JOBS);
        let top = TestCgroup::new()?;
        let left = tempfile::tempdir_in("/dev/shm")?;
        let engine = Engine::start(["--cgroup", top.path()])?;
        let half = |first: u32| {
            (first..jobs).step_by(2).try_for_each(|job| {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", "echo left >$0"]).arg(left.path().join(job.to_string()));
                run_and_remove(command, &top.dir().join(format!("job{job}")), None)
            })
        };
        thread::scope(|scope| {
            let other = scope.spawn(|| half(1));
            half(0).and_then(|()| other.join().expect("no panic"))
        })?;
        // The daemon scans for pages at intervals of a hundred times what the last scan took. A scan that reparents the
        // pages of all jobs takes long, most of all in an unoptimized daemon on a busy host.
        let show = try_poll_until(6 * SOON, "all counters but one to be free", || {
            let show = engine.show()?;
            Ok((show.cgroups.len() == 1).then_some(show))
        })?;
        show.check()?;
        let used = show.cgroup(top.path())?.used_pages();
        ensure!(used >= jobs.into(), "a page of each is left, and charged: {used}");
        engine.audit_at_rest::<&str>(&[])?;
        drop(left);
        try_poll_until(SOON, "the end of the pages", || {
            engine.heal()?;
            Ok((engine.show()?.cgroup(top.path())?.used_pages() < jobs.into()).then_some(()))
        })?;
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}
