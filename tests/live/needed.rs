//! Limits go by what is needed: no task is killed for page cache above a limit, whoever has the files open. Tasks are
//! killed for what cannot be reclaimed, however much page cache there is beside it.

use anyhow::{Context, Result, ensure};
use memstock_tests::hog::{HogBuilder, size};
use memstock_tests::kernel_cgroup::{KILLS_FOR_DIRTY_PAGES, kills_for_dirty_pages};
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, KernelCgroup, PAGE, Task, TestCgroup, kernel_cgroup, live};

/// Every limit here, in pages.
const LIMIT: u64 = 2048;

/// Ways to fill the page cache: files that are closed, written and not synced, copied, and mapped.
const FILLERS: [Mode; 4] =
    [Mode::FilesClosed, Mode::FileWrite, Mode::FileCopy, Mode::MmapFileShared];

/// The kernel's controller kills no task for it; memstock must do the same.
#[test]
fn the_kernel_kills_nobody_for_page_cache() -> Result<()> {
    live(|| {
        for mode in FILLERS {
            let Some(kernel) = KernelCgroup::new()? else {
                skip(&name(), kernel_cgroup::ABSENT);
                return Ok(());
            };
            kernel.limit(Some(LIMIT))?;
            let builder = Holder::of(mode).pages(2 * LIMIT as u32).kernel(&kernel);
            let mut holder = builder.start().with_context(|| mode.name())?;
            if let Err(error) = holder.get() {
                ensure!(
                    kills_for_dirty_pages(),
                    "{} under the kernel's limit: {error:#}",
                    mode.name()
                );
                skip(&format!("{}: {}", name(), mode.name()), KILLS_FOR_DIRTY_PAGES);
                continue;
            }
            ensure!(kernel.usage_pages()? <= LIMIT, "{}", mode.name());
        }
        Ok(())
    })
}

#[test]
#[ignore = "long"]
fn nobody_is_killed_for_page_cache() -> Result<()> {
    live(|| {
        for mode in FILLERS {
            let cgroup = TestCgroup::new()?;
            let engine = Engine::start(["--cgroup", cgroup.path(), "--limit", &size(LIMIT)])?;
            let builder = Holder::of(mode).pages(2 * LIMIT as u32).cgroup(&cgroup);
            let mut holder = builder.start().with_context(|| mode.name())?;
            holder.get().with_context(|| format!("{} under a limit", mode.name()))?;
            let show = engine.show()?;
            let memory = &show.cgroup(cgroup.path())?.memory;
            ensure!(memory.failcnt > 0, "{}: the limit was not met: {memory:?}", mode.name());
            ensure!(memory.needed_watermark < LIMIT * PAGE, "{}: {memory:?}", mode.name());
            let killed = [engine.events_of("oom-kill")?, engine.events_of("no-victim")?];
            ensure!(killed.iter().all(Vec::is_empty), "{}: {killed:?}", mode.name());
            // It is reclaimed, or reported if the disk is too slow; a few pages may have come after the last reclaim.
            let told = try_poll_until(SOON, "cache to be reclaimed or reported", || {
                let memory = engine.show()?.cgroup(cgroup.path())?.memory.clone();
                let is_back = memory.usage <= 3 * LIMIT * PAGE / 2;
                let told = engine
                    .events_of("cache-over-limit")?
                    .pop()
                    .filter(|_| memory.file_over_limit > 0);
                Ok((is_back || told.is_some()).then_some(told))
            })?;
            if let Some(told) = told {
                let field = |name: &str| -> Result<u64> { Ok(told.field(name).parse()?) };
                ensure!(field("needed_pages")? <= LIMIT && field("over_pages")? > 0, "{told:?}");
            }
            holder.give()?;
            engine.show()?.check()?;
            engine.stop()?;
        }
        Ok(())
    })
}

/// Private and shared memory cannot be reclaimed without swap, and page cache beside them does not hide that.
#[test]
fn what_cannot_be_taken_back_is_killed_for() -> Result<()> {
    live(|| {
        let shared = tempfile::Builder::new().prefix("memstock-test-").tempdir_in("/dev/shm")?;
        let file = shared.path().join("file");
        for (what, builder) in [
            ("private", HogBuilder::pages(2 * LIMIT)),
            ("shared", HogBuilder::pages(2 * LIMIT).file(&file)),
        ] {
            let cgroup = TestCgroup::new()?;
            let engine = Engine::start(["--cgroup", cgroup.path(), "--limit", &size(LIMIT)])?;
            let mut holder =
                Holder::of(Mode::FilesClosed).pages(LIMIT as u32 / 2).cgroup(&cgroup).start()?;
            holder.get()?;
            let mut hog = builder.start(&cgroup)?;
            hog.was_killed().with_context(|| format!("a hog of {what} memory"))?;
            // As in the kernel, a file in memory belongs to no task: the larger task is killed first.
            let kills = try_poll_until(SOON, "the event of a kill", || {
                Ok(Some(engine.events_of("oom-kill")?).filter(|kills| !kills.is_empty()))
            })?;
            let victims = [hog.id(), holder.id()].map(|id| id.to_string());
            for kill in &kills {
                ensure!(victims.iter().any(|id| id == kill.field("victim")), "{kill:?}");
            }
            engine.stop()?;
            let _ = std::fs::remove_file(&file);
        }
        Ok(())
    })
}

/// Files in memory go with nobody: who was killed for them in vain is not followed by the next, as long as nobody charges.
#[test]
fn a_kill_that_frees_nothing_is_not_followed_by_another() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        // What they have was there before, and belongs to nobody.
        let mut innocents = [Task::start(&cgroup, None)?, Task::start(&cgroup, None)?];
        innocents.iter_mut().try_for_each(|task| task.touch(LIMIT).map(drop))?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let builder = Holder::of(Mode::TmpfsWrite).pages(2 * LIMIT as u32).cgroup(&cgroup);
        let mut holder = builder.start()?;
        holder.get()?;
        let set = ["limit", cgroup.path(), "--memory", &size(LIMIT), "--force"];
        ensure!(memstock(set)?.finish(SOON)?.code() == 0, "the limit is not set");
        try_poll_until(SOON, "a kill", || {
            Ok((!engine.events_of("oom-kill")?.is_empty()).then_some(()))
        })?;
        // The next one would follow at once.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let kills = engine.events_of("oom-kill")?;
        ensure!(kills.len() == 1, "{kills:?}");
        engine.stop().map(drop)
    })
}

#[test]
fn a_limit_can_be_set_below_page_cache() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let mut holder =
            Holder::of(Mode::FilesClosed).pages(2 * LIMIT as u32).cgroup(&cgroup).start()?;
        holder.get()?;
        let set = memstock(["limit", cgroup.path(), "--memory", &size(LIMIT)])?.finish(SOON)?;
        ensure!(set.code() == 0, "{set:?}");
        let show = engine.show()?;
        ensure!(show.cgroup(cgroup.path())?.memory.limit == Some(LIMIT * PAGE), "{show:#?}");
        // The task goes on.
        holder.give()?;
        holder.get()?;
        ensure!(engine.events_of("oom-kill")?.is_empty(), "somebody was killed");
        engine.stop().map(drop)
    })
}

/// One run gives a verdict for every limit, as the kernel would.
#[test]
fn observing_goes_by_what_is_needed() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let args = ["--observe", "--cgroup", cgroup.path(), "--limit", &size(LIMIT)];
        let engine = Engine::start(args)?;
        let mut holder =
            Holder::of(Mode::FilesClosed).pages(2 * LIMIT as u32).cgroup(&cgroup).start()?;
        holder.get()?;
        let report =
            try_poll_until(SOON, "a report", || Ok(engine.events_of("would-enforce")?.pop()))?;
        let field = |name: &str| -> Result<u64> { Ok(report.field(name).parse()?) };
        ensure!(field("needed_pages")? < LIMIT && field("file_pages")? > 0, "{report:?}");
        ensure!(report.field("victim").is_empty(), "nobody would be killed: {report:?}");
        let said = engine.stop()?.stdout;
        ensure!(said.contains(&format!("\n{}: fits at ", cgroup.path())), "{said}");
        ensure!(said.contains("\n  8.0MiB: reclaims ("), "{said}");
        Ok(())
    })
}
