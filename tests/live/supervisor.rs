//! Nothing stops the daemon: failures are reported, shown and retried, events from other hierarchies are ignored, and
//! an engine ends only when told to.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memstock_tests::cgroup::PREFIX;
use memstock_tests::exposition::Exposition;
use memstock_tests::http::ask;
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::{Engine, Task, TestCgroup, leftovers, live};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

/// Limits the process to the files it has open now.
fn starve(process: u32) -> Result<Rlimit> {
    let open = |fd: &u64| fs::symlink_metadata(format!("/proc/{process}/fd/{fd}")).is_ok();
    let free = (0..).find(|fd| !open(fd));
    let maximum = fs::read_to_string(format!("/proc/{process}/limits"))?;
    let files = maximum.lines().find(|line| line.starts_with("Max open files"));
    let hard = files.and_then(|line| line.split_whitespace().nth(4)?.parse().ok());
    set_limit(process, Rlimit { current: free, maximum: hard })
}

fn set_limit(process: u32, limit: Rlimit) -> Result<Rlimit> {
    let pid = Pid::from_raw(process.cast_signed());
    prlimit(pid, Resource::Nofile, limit).context("the limit of open files")
}

/// When the daemon cannot open files, parts of it fail; the engine, its limits and its counts stay, and it recovers by
/// itself when it can open files again.
#[test]
#[ignore = "long"]
fn a_daemon_out_of_files_goes_on() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let args = ["--cgroup", top.path(), "--limit", "1G", "--metrics", "0"];
        let engine = Engine::start(args)?;
        let at = engine.metrics()?;
        let mut task = Task::start(&top, None)?;
        let gone = top.child("gone")?;
        try_poll_until(SOON, "the child to be tracked", || {
            Ok(engine.show()?.cgroup(gone.path()).is_ok().then_some(()))
        })?;
        let fails = |part: &str| {
            try_poll_until(SOON, part, || {
                let begin = format!("part-fails: {part}: ");
                let show = engine.show()?;
                Ok(show.degraded.iter().any(|it| it.starts_with(&begin)).then_some(()))
            })
        };
        let daemon = engine.daemon();
        let before = starve(daemon)?;
        fails("accounting")?;
        drop(gone);
        fails("tree")?;
        let table = memstock(["show"])?.finish(SOON)?;
        ensure!(table.stdout.contains("\ndegraded: part-fails: tree: "), "{table:?}");
        task.touch(300)?;
        let show = engine.show()?;
        ensure!(show.cgroup(top.path())?.used_pages() >= 300, "{show:#?}");
        ensure!(show.cgroup(top.path())?.memory.limit == Some(1 << 30), "{show:#?}");
        set_limit(daemon, before)?;
        try_poll_until(SOON, "the daemon to recover", || {
            let show = engine.show()?;
            Ok((show.degraded.is_empty() && show.cgroups.len() == 1).then_some(()))
        })?;
        let ready = ask(at, "GET", "/readyz", &[])?;
        ensure!(ready.status == 200, "{ready:?}");
        let metrics = Exposition::get(at)?;
        for part in ["accounting", "tree"] {
            let series = format!("memstock_daemon_errors_total{{part=\"{part}\"}}");
            ensure!(metrics.value(&series)? > 0.0, "{}", metrics.text);
            // The failure is reported at most three times, the recovery once.
            let told = |kind: &str| -> Result<usize> {
                let of = |event: &&memstock_tests::engine::Event| {
                    event.kind == kind && event.field("part") == part
                };
                Ok(engine.events()?.iter().filter(of).count())
            };
            let (failed, recovered) = (told("part-failed")?, told("part-recovered")?);
            ensure!((1..=3).contains(&failed) && recovered == 1, "{part}: {failed}, {recovered}");
        }
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// A daemon that ends without being told to leaves everything behind, and the next one goes on with it.
#[test]
fn a_daemon_that_fails_leaves_the_engine() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, None)?;
        let mut engine = Engine::start(["--cgroup", cgroup.path(), "--limit", "1G"])?;
        // Not SIGQUIT: a shell's background jobs ignore it, and the daemon would inherit that.
        for signal in [Signal::ABORT, Signal::XCPU] {
            task.touch(100)?;
            engine.process().signal(signal)?;
            engine.process().wait(SOON)?;
            let show = engine.show()?;
            ensure!(show.cgroup(cgroup.path())?.memory.limit == Some(1 << 30), "{show:#?}");
            ensure!(show.degraded.iter().any(|it| it.starts_with("no-enforcer: ")), "{show:#?}");
            engine.adopt(["--no-adopt"])?;
            let show = engine.show()?;
            ensure!(show.degraded.is_empty(), "{show:#?}");
        }
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop()?;
        leftovers::nothing_held()
    })
}

/// A cgroup v1 hierarchy of the test's own.
struct V1 {
    dir: PathBuf,
    name: String,
}

impl V1 {
    /// `None` if the kernel has no cgroup v1.
    fn mount() -> Result<Option<Self>> {
        let (dir, name) = (tempfile::tempdir()?.keep(), format!("{PREFIX}{}", std::process::id()));
        let v1 = Self { dir, name };
        Ok(v1.mounted()?.then_some(v1))
    }

    fn mounted(&self) -> Result<bool> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "cgroup", "-o", &format!("none,name={}", self.name), "cgroup"]);
        Ok(mount.arg(&self.dir).output()?.status.success())
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    /// Unmounts the hierarchy. Returns whether the kernel ended it, which it never does if a cgroup in it was not
    /// completely gone.
    fn end(&self) -> Result<bool> {
        /// How long the kernel may take for that.
        const ENDS: Duration = Duration::from_secs(1);
        Command::new("umount").arg(&self.dir).output()?;
        let own = format!(":name={}:", self.name);
        let is_gone = || -> Option<()> {
            fs::read_to_string("/proc/self/cgroup")
                .is_ok_and(|text| !text.contains(&own))
                .then_some(())
        };
        let ended = poll_until(ENDS, "the end of a hierarchy", is_gone).is_ok();
        if !ended {
            self.mounted()?;
        }
        Ok(ended)
    }
}

impl Drop for V1 {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let ended =
            try_poll_until(SOON, "the end of a hierarchy", || Ok(self.end()?.then_some(())));
        if let Err(error) = ended {
            eprintln!("{error:#}");
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Maximum of folders to make until one has a given inode.
const MOST: u64 = 200_000;

/// Each hierarchy counts inodes by itself, so a v1 folder with the inode of a tracked cgroup means nothing.
#[test]
fn a_v1_directory_with_the_id_of_a_cgroup_closes_nothing() -> Result<()> {
    const CGROUPS: usize = 200;
    live(|| {
        let Some(v1) = V1::mount()? else {
            skip(&name(), "cgroup v1 cannot be mounted");
            return Ok(());
        };
        let top = TestCgroup::new()?;
        let dir = v1.dir().join("x");
        let make = || -> Result<u64> {
            fs::create_dir(&dir)?;
            Ok(fs::metadata(&dir)?.ino())
        };
        let first = make()?;
        fs::remove_dir(&dir)?;
        let second = make()?;
        fs::remove_dir(&dir)?;
        let target = fs::metadata(top.dir())?.ino();
        if target < second || (target - second) / (second - first) > MOST {
            skip(&name(), "the ids of cgroup v2 are too far from those of a new v1 hierarchy");
            return Ok(());
        }
        let cgroups = (0..CGROUPS).map(|n| top.child(&n.to_string()));
        let cgroups = cgroups.collect::<Result<Vec<_>>>()?;
        let ids = cgroups.iter().map(|cgroup| Ok(fs::metadata(cgroup.dir())?.ino()));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        let last = *ids.iter().max().context("there are some")?;
        let engine = Engine::start(["--cgroup", top.path(), "--max-cgroups", "512"])?;
        let mut met = 0;
        while met < 3 {
            let id = make()?;
            met += u32::from(ids.contains(&id));
            fs::remove_dir(&dir)?;
            ensure!(id <= last, "met {met} only");
        }
        // Any effect would have come before the marker is tracked.
        let marker = top.child("marker")?;
        try_poll_until(SOON, "the marker", || {
            Ok(engine.show()?.cgroup(marker.path()).is_ok().then_some(()))
        })?;
        let show = engine.show()?;
        ensure!(show.cgroups.len() == CGROUPS + 2, "{} are left", show.cgroups.len());
        engine.stop().map(drop)
    })
}

/// How often the daemon's loop has slept.
fn sleeps(daemon: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{daemon}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.context("voluntary_ctxt_switches")?.trim().parse().context("a number")
}

#[test]
#[ignore = "long"]
fn v1_directories_cost_an_idle_daemon_nothing() -> Result<()> {
    const WHILE: Duration = Duration::from_secs(4);
    live(|| {
        let Some(v1) = V1::mount()? else {
            skip(&name(), "cgroup v1 cannot be mounted");
            return Ok(());
        };
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path(), "--quiet"])?;
        let daemon = engine.daemon();
        let awake = || -> Result<u64> {
            let before = sleeps(daemon)?;
            sleep(WHILE);
            Ok(sleeps(daemon)? - before)
        };
        let alone = awake()?;
        let before = sleeps(daemon)?;
        (0..1000).try_for_each(|n| fs::create_dir(v1.dir().join(n.to_string())))?;
        let meanwhile = sleeps(daemon)? - before;
        let beside = awake()?;
        // It sleeps once a second, and a few times more for what others make meanwhile. If it looked for each folder
        // every 100 ms, it would be 40 times.
        let more = |than: u64| than + 12;
        ensure!(beside <= more(alone), "{beside} times beside them, {alone} without");
        ensure!(meanwhile <= more(2 * alone), "{meanwhile} times while they were made");
        engine.stop().map(drop)
    })
}
