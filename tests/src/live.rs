//! Runs a live test alone on the host, from a clean start to a clean end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::container::remove_from_v1;
use crate::poll::{SOON, times};
use crate::process::memstock;
use crate::refusal::{refusal, refusal_of_cgroups};
use crate::scale::{minutes, scaled};
use crate::{cgroup, kernel_cgroup, leftovers, skip::skip};

/// What a test returns: `()` if it asserts, or a `Result`.
pub trait Outcome {
    /// The outcome of a test that could not run here.
    fn skipped() -> Self;
    /// This outcome, unless it is a success and `other` is not.
    fn and(self, other: Result<()>) -> Self;
}

impl Outcome for Result<()> {
    fn skipped() -> Self {
        Ok(())
    }

    fn and(self, other: Result<()>) -> Self {
        Result::and_then(self, |()| other)
    }
}

impl Outcome for () {
    fn skipped() -> Self {}

    fn and(self, other: Result<()>) -> Self {
        if let Err(error) = other {
            panic!("{error:#}");
        }
    }
}

/// Runs a live test while no other one runs, and checks that it leaves nothing behind.
///
/// It does not stop an engine that somebody else runs: the test fails and says so.
///
/// # Panics
/// When a test without a `Result` finds something in the host before or after it.
pub fn live<O: Outcome>(test: impl FnOnce() -> O) -> O {
    if is_refused() {
        return O::skipped();
    }
    let _turn = match take_turn().and_then(|turn| clean_start().map(|()| turn)) {
        Ok(turn) => turn,
        Err(error) => return O::skipped().and(Err(error)),
    };
    let _bound = Bound::new(name());
    let _cleaner = Cleaner;
    // The test's own failure says more than its leftovers.
    test().and(leftovers::none())
}

/// Runs a bench while no live test runs and no other engine charges, since the bench would measure them too.
///
/// # Errors
/// When an engine runs or was left behind; otherwise those of the bench.
pub fn alone(bench: impl FnOnce() -> Result<()>) -> Result<()> {
    if is_refused() {
        return Ok(());
    }
    let _turn = take_turn()?;
    let found = leftovers::pins_and_lock();
    ensure!(found.is_empty(), "an engine runs, or was left: {}", found.join(", "));
    cgroup::remove_of_bench()?;
    bench()
}

/// Whether the kernel refuses the BPF or cgroups that the running test or bench needs. If so, reports it as skipped.
pub fn is_refused() -> bool {
    skipped(refusal())
}

/// As [`is_refused`], for a test that needs cgroups but no BPF.
pub fn has_no_cgroups() -> bool {
    skipped(refusal_of_cgroups().as_deref())
}

fn skipped(reason: Option<&str>) -> bool {
    if let Some(reason) = reason {
        skip(&name(), reason);
    }
    reason.is_some()
}

/// The name of the running test (libtest names the test's thread) or bench.
pub fn name() -> String {
    match std::thread::current().name() {
        Some("main") => bench().unwrap_or_else(|| "main".to_owned()),
        name => name.unwrap_or("a test").to_owned(),
    }
}

/// The program's name without the hash that cargo appends.
fn bench() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let name = program.file_stem()?.to_str()?.split('-').next()?;
    Some(format!("bench {name}"))
}

fn clean_start() -> Result<()> {
    // We hold the lock, so no bench is running.
    if leftovers::pins_and_lock().is_empty() {
        cgroup::remove_of_bench()?;
    }
    leftovers::none().context(
        "before the test; if nobody needs it, `memstock stop` removes it, and rmdir a cgroup",
    )
}

/// The right to be the only live test on this host, across the threads of one test binary and across binaries.
struct HostLock {
    /// A `flock` on a folder that always exists; ends when the file is closed.
    _lock: File,
}

/// Exists while a live test runs. If the next test finds it, a killed test left it, and other things too.
const RUNNING: &str = "/run/live-test-of-memstock";

impl Drop for HostLock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(RUNNING) {
            eprintln!("{RUNNING}: {error}");
        }
    }
}

fn take_turn() -> Result<HostLock> {
    let mount = cgroup::mount()?;
    let lock = File::open(&mount).with_context(|| mount.display().to_string())?;
    flock(&lock, FlockOperation::LockExclusive).context("waiting for another live test")?;
    if Path::new(RUNNING).exists() {
        drop(Cleaner);
    }
    File::create(RUNNING).context(RUNNING)?;
    Ok(HostLock { _lock: lock })
}

/// Time limit of one test, multiplied by its repetitions. Some take a minute.
const BOUND: Duration = Duration::from_secs(15 * 60);

/// Aborts the test binary when a test hangs, and names the test.
struct Bound {
    /// Dropping it ends the watchdog thread.
    _running: Sender<()>,
}

impl Bound {
    fn new(test: String) -> Self {
        let (running, end) = channel::<()>();
        let bound = BOUND * times() * scaled(1) + Duration::from_secs(60 * minutes());
        std::thread::spawn(move || {
            if end.recv_timeout(bound) == Err(RecvTimeoutError::Timeout) {
                let line = format!("\n{test} hangs: it was ended after {bound:?}\n");
                // libtest would capture `eprintln!` here, and the abort would lose it.
                let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
                std::process::abort();
            }
        });
        Self { _running: running }
    }
}

/// On `Drop`, clears away what a failed or killed test left, so that the next one starts clean.
struct Cleaner;

impl Drop for Cleaner {
    fn drop(&mut self) {
        match leftovers::find() {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                eprintln!("clearing away {}", found.join(", "));
                if let Err(error) = memstock(["stop"]).and_then(|stop| stop.finish(SOON)) {
                    eprintln!("memstock stop: {error:#}");
                }
                remove_cgroups();
            }
            Err(error) => eprintln!("looking for leftovers: {error:#}"),
        }
    }
}

/// Removes cgroups with the name of a test's: only those are sure to be ours.
fn remove_cgroups() {
    if let Ok(mount) = cgroup::mount() {
        for dir in of_tests(&mount) {
            cgroup::remove(&dir);
            // Its tasks may also have been in v1 cgroups of the same path.
            if let Ok(path) = dir.strip_prefix(&mount) {
                remove_from_v1(&Path::new("/").join(path).display().to_string());
            }
        }
    }
    // After the v2 cgroups, since only those can kill: by now the tasks that were in both are dead.
    if let Ok(Some(mount)) = cgroup::mount_v1_memory() {
        of_tests(&mount).iter().for_each(|dir| kernel_cgroup::remove(dir));
    }
}

fn of_tests(mount: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(mount).into_iter().flatten().flatten();
    let ours =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(cgroup::PREFIX));
    ours.map(|entry| entry.path()).collect()
}
