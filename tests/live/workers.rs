//! A hung worker affects only its own cgroup, whose limit holds after a while; other limits hold as before.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memstock_tests::growing::Grower;
use memstock_tests::hog::HogBuilder;
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::slow_disk::SlowDisk;
use memstock_tests::workload::grow::Order;
use memstock_tests::{Engine, PAGE, Resident, TestCgroup, binaries, live};

/// Every limit here, in pages.
const LIMIT: u64 = 4096;
/// How long a step of a worker may take before it is replaced.
const HANGS: Duration = Duration::from_secs(4);

/// A thread stopped by ptrace. Resumed on `Drop`.
///
/// It is stopped while it sleeps, like a thread that hangs: in the middle of an allocation it would hold a malloc lock
/// that all threads share.
struct Stopped(i32);

impl Stopped {
    /// The thread `name` of a process.
    fn find(pid: u32, name: &str) -> Result<Self> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let is_it = |dir: &fs::DirEntry| {
            fs::read_to_string(dir.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let found = tasks.into_iter().find(is_it).with_context(|| format!("no thread {name}"))?;
        let stat = fs::read_to_string(found.path().join("stat"))?;
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        ensure!(state == Some('S'), "it does not sleep: {stat}");
        let tid: i32 = found.file_name().to_string_lossy().parse()?;
        trace(libc::PTRACE_SEIZE, tid)?;
        let stopped = Self(tid);
        trace(libc::PTRACE_INTERRUPT, tid)?;
        let mut status = 0;
        // SAFETY: waitpid writes only to `status`.
        let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        ensure!(waited == tid && libc::WIFSTOPPED(status), "the thread does not stop");
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = trace(libc::PTRACE_DETACH, self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// No new inotify instances for anybody, until it is dropped.
struct NoInotify(String);

impl NoInotify {
    const MOST: &str = "/proc/sys/fs/inotify/max_user_instances";

    fn set() -> Result<Self> {
        let before = Self(fs::read_to_string(Self::MOST)?);
        fs::write(Self::MOST, "0").context(Self::MOST)?;
        Ok(before)
    }
}

impl Drop for NoInotify {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::MOST, &self.0) {
            eprintln!("{}: {error}", Self::MOST);
        }
    }
}

/// Without an inotify instance tasks are not held.
#[test]
fn limits_are_kept_without_a_hold() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::limited(LIMIT, &[&cgroup])?;
        let none = NoInotify::set()?;
        let mut hog = HogBuilder::pages(2 * LIMIT).start(&cgroup)?;
        hog.was_killed()?;
        drop(none);
        engine.stop().map(drop)
    })
}

fn trace(request: libc::c_uint, tid: i32) -> Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests access no memory.
    let done = unsafe { libc::ptrace(request, tid, none, none) };
    ensure!(done == 0, "ptrace: {}", std::io::Error::last_os_error());
    Ok(())
}

#[test]
#[ignore = "long"]
fn a_worker_that_hangs_holds_up_nobody_else() -> Result<()> {
    live(|| {
        let (hung, other) = (TestCgroup::new()?, TestCgroup::new()?);
        let mut engine = Engine::limited(LIMIT, &[&hung, &other])?;
        let pid = engine.process().id();
        let worker = try_poll_until(SOON, "a worker", || Ok(Stopped::find(pid, "enforce-0").ok()))?;
        let start = Instant::now();
        let lazy =
            Order { first: 1000, more: 2 * LIMIT as u32, lazyfree: true, ..Order::default() };
        let mut first = Grower::start(&hung, &lazy)?;
        first.begin_to_grow()?;
        // The hung worker takes the job.
        try_poll_until(SOON, "the limit to be met", || {
            let show = engine.show()?;
            Ok((show.cgroup(hung.path())?.memory.usage > LIMIT * PAGE).then_some(()))
        })?;
        let mut hogs = Vec::new();
        for _ in 0..5 {
            let mut hog = HogBuilder::pages(2 * LIMIT).cpu(1).start(&other)?;
            hog.was_killed().context("beside a worker that hangs")?;
            hogs.push(hog.id());
        }
        let over = overshoot(&engine, &other)?;
        eprintln!("{over} pages above the limit beside a worker that hangs");
        ensure!(over <= engine.overshoot(LIMIT)?, "{over} pages above the limit");
        // Another worker takes over its cgroup.
        first.was_killed().context("of a worker that hangs")?;
        let took = start.elapsed();
        eprintln!("its own cgroup had to wait for {took:?}");
        ensure!(took >= HANGS, "the worker was not stopped");
        try_poll_until(SOON, "the report of the hang", || {
            Ok(engine.stderr()?.contains("hangs").then_some(()))
        })?;
        // Which does not try what the first may hang in.
        let reclaims = engine.events_of("reclaim")?;
        ensure!(reclaims.iter().all(|event| event.field("cgroup") != hung.path()), "{reclaims:?}");
        drop(worker);
        engine.only_killed(&[&hogs[..], &[first.id()]].concat())?;
        // The resumed worker works again.
        let mut last = HogBuilder::pages(2 * LIMIT).start(&hung)?;
        last.was_killed()?;
        engine.stop().map(drop)
    })
}

/// Starts tasks that want too much, one after the other. Returns how long each took to be killed.
fn kill(cgroup: &TestCgroup, times: u32) -> Result<Vec<Duration>> {
    let killed = |_| {
        let start = Instant::now();
        HogBuilder::pages(2 * LIMIT).cpu(1).start(cgroup)?.was_killed()?;
        Ok(start.elapsed())
    };
    let mut took = (0..times).map(killed).collect::<Result<Vec<_>>>()?;
    took.sort();
    Ok(took)
}

/// A cgroup with a limit of 16 MiB has 2 GiB of dirty page cache, which its disk takes half an hour to write: only its
/// own limit suffers, and other cgroups lose no time.
#[test]
#[ignore = "long"]
fn a_slow_disk_holds_up_nobody_else() -> Result<()> {
    const DIRTY: u64 = (2 << 30) / PAGE;
    const KILLS: u32 = 9;
    live(|| {
        let disk = match SlowDisk::mount()? {
            Ok(disk) => disk,
            Err(reason) => {
                skip(&name(), &reason);
                return Ok(());
            }
        };
        // The dirty cache would push the program out, and who reads it in again is charged for it, beyond the limit.
        let _program = Resident::program(&binaries::workload()?)?;
        let (slow, other) = (TestCgroup::new()?, TestCgroup::new()?);
        let engine = Engine::limited(LIMIT, &[&slow, &other])?;
        let alone = kill(&other, KILLS)?;
        let mut writer = HogBuilder::pages(DIRTY).cpu(0).file(&disk.file("dirty")).start(&slow)?;
        writer.has_all().context("dirty page cache is nothing to kill for")?;
        let used = engine.show()?.cgroup(slow.path())?.used_pages();
        ensure!(used > DIRTY / 2, "{used} pages are left of {DIRTY}");
        let beside = kill(&other, KILLS)?;
        let over = overshoot(&engine, &other)?;
        eprintln!("alone {alone:?}, beside a slow disk {beside:?}, {over} pages above the limit");
        ensure!(over <= engine.overshoot(LIMIT)?, "{over} pages above the limit");
        // A worker that waited for that disk would take seconds; smaller differences come from more load on two CPUs.
        let middle = alone.len() / 2;
        ensure!(beside[middle] <= 3 * alone[middle], "alone {alone:?}, beside it {beside:?}");
        ensure!(writer.lives(), "it was killed");
        engine.stop().map(drop)
    })
}

fn overshoot(engine: &Engine, cgroup: &TestCgroup) -> Result<u64> {
    let show = engine.show()?;
    Ok((show.cgroup(cgroup.path())?.memory.watermark / PAGE).saturating_sub(LIMIT))
}
