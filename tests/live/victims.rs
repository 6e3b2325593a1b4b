//! Which task is killed at a limit, and what is tried before, in cases known from practice, compared with the kernel.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use memstock_tests::growing::{FuseServer, Grower, resident_pages};
use memstock_tests::hog::size;
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::workload::grow::Order;
use memstock_tests::{Engine, PAGE, Task, TestCgroup, live};
use tempfile::TempDir;

/// The limit in most tests, in pages.
const LIMIT: u64 = 8192;
/// More pages than fit below it.
const MORE: u32 = 16384;

fn engine(cgroup: &TestCgroup, limit: u64) -> Result<Engine> {
    Engine::start(["--cgroup", cgroup.path(), "--limit", &size(limit)])
}

/// Makes a file on a disk that is not in the page cache.
fn uncached_file(nr_pages: u64) -> Result<(TempDir, std::path::PathBuf)> {
    let dir = tempfile::Builder::new().prefix("memstock-test-").tempdir_in("/var/tmp")?;
    let path = dir.path().join("file");
    let mut file = File::create_new(&path)?;
    file.write_all(&vec![1; (nr_pages * PAGE) as usize])?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok((dir, path))
}

/// The workload has a file of the server open, and the server is in the same cgroup.
#[test]
fn a_file_server_in_the_cgroup_hangs_nobody() -> Result<()> {
    live(|| {
        let (cgroup, other) = (TestCgroup::new()?, TestCgroup::new()?);
        let engine = Engine::limited(LIMIT, &[&cgroup, &other])?;
        let Some(mut server) = FuseServer::start(Some(&cgroup), false)? else {
            skip(&name(), "there is no /dev/fuse");
            return Ok(());
        };
        let order = Order {
            more: MORE,
            mounts_of: Some(server.id()),
            reads: Some(server.file()),
            ..Order::default()
        };
        let mut hog = Grower::start(&cgroup, &order)?;
        ensure!(!hog.grow(), "it got all of it");
        hog.was_killed()?;
        ensure!(server.lives(), "the server was killed");
        // The limit of another cgroup still holds.
        let mut another = Grower::start(&other, &Order { more: MORE, ..Order::default() })?;
        ensure!(!another.grow(), "it got all of it");
        another.was_killed()?;
        engine.only_killed(&[hog.id(), another.id()])?;
        engine.stop().map(drop)
    })
}

/// In `/proc`, a process whose main thread has ended seems to have no memory.
#[test]
fn a_main_thread_that_has_ended_hides_nothing() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = engine(&cgroup, LIMIT)?;
        let mut innocent = Grower::start(&cgroup, &Order { first: 2048, ..Order::default() })?;
        let order = Order { first: 3072, more: MORE, leaderless: true, ..Order::default() };
        let mut hog = Grower::start(&cgroup, &order)?;
        ensure!(!hog.grow(), "it got all of it");
        hog.was_killed()?;
        engine.only_killed(&[hog.id()])?;
        ensure!(innocent.lives() && engine.events_of("no-victim")?.is_empty());
        engine.stop().map(drop)
    })
}

#[test]
fn a_main_thread_that_has_ended_hides_no_page_from_adoption() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let order = Order { first: 4096, leaderless: true, ..Order::default() };
        let holder = Grower::start(&cgroup, &order)?;
        let engine = Engine::start_adopting(["--no-drain", "--cgroup", cgroup.path()])?;
        try_poll_until(SOON, "its pages to be adopted", || {
            let needed = engine.show()?.cgroup(cgroup.path())?.memory.needed / PAGE;
            Ok((4096..5120).contains(&needed).then_some(()))
        })?;
        drop(holder);
        engine.stop().map(drop)
    })
}

/// A thread of the victim waits for a server that does not answer: it cannot end, but its memory can be freed.
#[test]
fn the_memory_of_who_cannot_end_comes_back() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let Some(server) = FuseServer::start(None, true)? else {
            skip(&name(), "there is no /dev/fuse");
            return Ok(());
        };
        let engine = engine(&cgroup, LIMIT)?;
        let mut innocent = Grower::start(&cgroup, &Order { first: 2048, ..Order::default() })?;
        let order = Order {
            first: 3072,
            more: MORE,
            mounts_of: Some(server.id()),
            waits_for: Some(server.file()),
            ..Order::default()
        };
        let mut hog = Grower::start(&cgroup, &order)?;
        hog.begin_to_grow()?;
        engine.only_killed(&[hog.id()])?;
        poll_until(SOON, "its memory", || {
            resident_pages(hog.id()).is_none_or(|pages| pages < 100).then_some(())
        })?;
        try_poll_until(SOON, "the usage to fall", || {
            let usage = engine.show()?.cgroup(cgroup.path())?.memory.usage / PAGE;
            Ok((usage < 3072).then_some(()))
        })?;
        // Nobody waits for its end.
        poll_until(Duration::from_millis(500), "the others to be let go", || {
            let freeze = std::fs::read_to_string(cgroup.dir().join("cgroup.freeze"));
            freeze.is_ok_and(|text| text.trim() == "0").then_some(())
        })?;
        ensure!(hog.lives(), "it could end: that is another case");
        ensure!(innocent.lives() && engine.events_of("oom-kill")?.len() == 1, "an innocent died");
        drop(server);
        drop(hog);
        engine.stop().map(drop)
    })
}

/// The expected method of reclaim: the kernel's if it has a memory controller, which does not report how, else `ours`.
fn means(cgroup: &TestCgroup, ours: &'static str) -> &'static str {
    if cgroup.dir().join("memory.reclaim").exists() { "memory-reclaim" } else { ours }
}

/// Go, node, jemalloc and .NET free memory this way.
#[test]
fn lazily_freed_memory_is_taken_before_anybody_is_killed() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = engine(&cgroup, LIMIT)?;
        let order = Order { first: 6000, more: 4000, lazyfree: true, ..Order::default() };
        let mut task = Grower::start(&cgroup, &order)?;
        ensure!(task.grow() && task.lives(), "it was killed: {:?}", engine.events()?);
        let means = means(&cgroup, "lazyfree");
        // The event may be written after the task goes on.
        let reclaims = try_poll_until(SOON, "word of the reclaim", || {
            let reclaims = engine.events_of("reclaim")?;
            Ok(reclaims.iter().any(|event| event.field("means") == means).then_some(reclaims))
        })?;
        // So much that it is not at its limit again with the next page.
        let tried = reclaims[0].field("tried_pages").parse::<u64>()?;
        ensure!((LIMIT / 16..LIMIT / 8).contains(&tried), "{reclaims:?}");
        ensure!(engine.events_of("oom-kill")?.is_empty());
        engine.stop().map(drop)
    })
}

/// Each round takes what one means has to give.
#[test]
fn what_one_means_does_not_give_another_does() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let (_dir, path) = uncached_file(3000)?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let order = Order { first: 2000, lazyfree: true, reads: Some(path), ..Order::default() };
        let holder = Grower::start(&cgroup, &order)?;
        let before = engine.used_at_rest(&cgroup)?;
        let said = memstock(["force-empty", cgroup.path()])?.finish(3 * SOON)?;
        let after = engine.used_at_rest(&cgroup)?;
        ensure!(after + 4000 < before, "{before} pages before, {after} after: {said:?}");
        drop(holder);
        engine.stop().map(drop)
    })
}

/// Page cache charged to one cgroup is not dropped for another, though both have the file open.
#[test]
fn the_cache_of_a_neighbour_stays() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let (greedy, reader) = (top.child("greedy")?, top.child("reader")?);
        let limit = format!("{}={}", greedy.path(), size(LIMIT / 2));
        let args = ["--cgroup", top.path(), "--cgroup", greedy.path(), "--limit", &limit];
        let engine = Engine::start(args)?;
        let (_dir, path) = uncached_file(LIMIT)?;
        let reads = Order { reads: Some(path.clone()), ..Order::default() };
        let neighbour = Grower::start(&reader, &reads)?;
        let cached =
            || -> Result<u64> { Ok(engine.show()?.cgroup(reader.path())?.memory.file / PAGE) };
        let (before, drops) = (cached()?, dropped()?);
        ensure!(before >= LIMIT, "{before} pages are cached");
        let mut hog = Grower::start(&greedy, &Order { more: MORE, ..reads })?;
        ensure!(!hog.grow(), "it got all of it");
        hog.was_killed()?;
        engine.only_killed(&[hog.id()])?;
        let after = cached()?;
        if dropped()? == drops {
            ensure!(after >= before - before / 100, "{before} pages before, {after} after");
        } else {
            skip(&name(), "the host's page cache was dropped meanwhile");
        }
        drop(neighbour);
        engine.stop().map(drop)
    })
}

/// How often all caches of the host were dropped.
fn dropped() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("drop_pagecache "));
    Ok(line.context("no drop_pagecache in /proc/vmstat")?.parse()?)
}

/// Files that are no longer open are found by their pages.
#[test]
fn cache_of_closed_files_is_taken_back() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let (_dir, path) = uncached_file(2 * LIMIT)?;
        if !is_on_disk(&path)? {
            skip(&name(), "/var/tmp is on no file system whose files can be opened by number");
            return Ok(());
        }
        let engine = engine(&cgroup, LIMIT)?;
        let order = Order { reads: Some(path), ..Order::default() };
        let reader = Grower::start(&cgroup, &order)?;
        try_poll_until(SOON, "the cache to be taken back", || {
            Ok((engine.show()?.cgroup(cgroup.path())?.memory.usage <= LIMIT * PAGE).then_some(()))
        })?;
        let reclaims = engine.events_of("reclaim")?;
        let means = means(&cgroup, "fadvise");
        ensure!(reclaims.iter().any(|event| event.field("means") == means), "{reclaims:?}");
        ensure!(engine.events_of("oom-kill")?.is_empty(), "somebody was killed");
        drop(reader);
        engine.stop().map(drop)
    })
}

/// ext2 to ext4, f2fs or xfs, by what statfs(2) says.
fn is_on_disk(path: &Path) -> Result<bool> {
    const MAGIC: [i64; 3] = [0xef53, 0xf2f5_2010, 0x5846_5342];
    Ok(MAGIC.contains(&rustix::fs::statfs(path)?.f_type))
}

/// Cache of a file that two processes have mapped cannot be reclaimed from outside; that is reported, and kills no
/// task.
#[test]
fn a_file_that_two_have_mapped_kills_nobody() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let (_dir, path) = uncached_file(2 * LIMIT)?;
        let engine = engine(&cgroup, LIMIT)?;
        let order = Order { maps: Some(path), ..Order::default() };
        let mut tasks = [Grower::start(&cgroup, &order)?, Grower::start(&cgroup, &order)?];
        try_poll_until(SOON, "cache to be reclaimed or reported", || {
            let memory = engine.show()?.cgroup(cgroup.path())?.memory.clone();
            let is_told = !engine.events_of("cache-over-limit")?.is_empty();
            Ok((is_told || memory.usage <= LIMIT * PAGE).then_some(()))
        })?;
        ensure!(tasks.iter_mut().all(Grower::lives), "one was killed: {:?}", engine.events()?);
        ensure!(engine.events_of("oom-kill")?.is_empty(), "somebody was killed");
        engine.stop().map(drop)
    })
}

/// It may be the shell that started the daemon. That there is nobody to kill is told of once, however often it is tried.
#[test]
fn nobody_in_the_daemons_cgroup_is_killed() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = engine(&cgroup, LIMIT)?;
        std::fs::write(cgroup.dir().join("cgroup.procs"), engine.daemon().to_string())?;
        let mut task = Task::start(&cgroup, None)?;
        for nr_pages in [LIMIT + 100, 10, 10] {
            task.touch(nr_pages)?;
            // Longer than it takes to try again.
            std::thread::sleep(Duration::from_secs(1));
        }
        let [no_victims, kills] = [engine.events_of("no-victim")?, engine.events_of("oom-kill")?];
        ensure!(no_victims.len() == 1 && kills.is_empty(), "{no_victims:?}, {kills:?}");
        task.touch(1).context("it was killed")?;
        // Another limit is another matter.
        let lower = memstock(["limit", cgroup.path(), "--memory", &size(LIMIT / 2), "--force"])?;
        ensure!(lower.finish(SOON)?.code() == 0, "the limit is not set");
        try_poll_until(SOON, "word of the other limit", || {
            Ok((engine.events_of("no-victim")?.len() == 2).then_some(()))
        })?;
        drop(task);
        engine.stop().map(drop)
    })
}

/// A task that must not be killed (`oom_score_adj` -1000) is held, with one event, and goes on when there is room.
#[test]
fn who_may_not_be_killed_is_held() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = engine(&cgroup, LIMIT)?;
        let order = Order { first: 10, more: MORE, adj: Some(-1000), ..Order::default() };
        let Ok(mut task) = Grower::start(&cgroup, &order) else {
            skip(&name(), "oom_score_adj cannot be lowered here (CAP_SYS_RESOURCE)");
            return engine.stop().map(drop);
        };
        task.begin_to_grow()?;
        try_poll_until(SOON, "an event", || {
            Ok((!engine.events_of("no-victim")?.is_empty()).then_some(()))
        })?;
        let over = || -> Result<u64> {
            let memory = engine.show()?.cgroup(cgroup.path())?.memory.clone();
            Ok((memory.usage / PAGE).saturating_sub(LIMIT))
        };
        // It runs for 10 ms per second, and each page that it takes is throttled by 1 ms. The bound allows as much
        // again for a host that freezes it late, and what it takes before the first hold, as in `limits.rs`. Without
        // the throttle it runs for 1 ms at full speed, and what nobody holds gets all it wants at once.
        const SECONDS: u64 = 5;
        let at_first = over()?;
        std::thread::sleep(Duration::from_secs(SECONDS));
        let more = over()?.saturating_sub(at_first);
        let unheld = u64::from(MORE) - LIMIT;
        let bound =
            if engine.throttles()? { 20 * SECONDS } else { unheld.saturating_sub(at_first + 1) };
        ensure!(more <= bound, "{at_first} pages above the limit, and {more} more later");
        ensure!(
            task.lives() && engine.events_of("no-victim")?.len() == 1,
            "{:?}",
            engine.events()?
        );
        let lifted = memstock(["limit", cgroup.path(), "--memory", "max"])?;
        ensure!(lifted.finish(SOON)?.code() == 0, "the limit is not lifted");
        try_poll_until(SOON, "all it wants", || {
            let needed = engine.show()?.cgroup(cgroup.path())?.memory.needed / PAGE;
            Ok((needed >= u64::from(MORE)).then_some(()))
        })?;
        drop(task);
        engine.stop().map(drop)
    })
}
