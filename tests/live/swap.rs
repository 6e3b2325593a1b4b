//! Memory+swap, on a host with swap.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use memstock_tests::growing::Grower;
use memstock_tests::hog::{HogBuilder, size};
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::Program;
use memstock_tests::skip::skip;
use memstock_tests::workload::grow::Order;
use memstock_tests::{Engine, KernelCgroup, PAGE, TestCgroup, kernel_cgroup, live};

/// The limit of memory, in pages.
const LIMIT: u64 = 4096;

/// A swap file of the test's own. Disabled and removed on `Drop`.
struct Swap(tempfile::TempDir);

impl Swap {
    fn on() -> Result<Self> {
        let swap = Self(tempfile::Builder::new().prefix("memstock-test-").tempdir_in("/var/tmp")?);
        let file = swap.file();
        fs::write(&file, vec![0; 128 << 20])?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        for program in ["mkswap", "swapon"] {
            let mut command = Command::new(program);
            command.arg(&file);
            let done = Program::from(command).finish(SOON)?;
            ensure!(done.code() == 0, "{program}: {done:?}");
        }
        Ok(swap)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("swap")
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let mut command = Command::new("swapoff");
        command.arg(self.file());
        if let Err(error) = Program::from(command).finish(3 * SOON) {
            eprintln!("{error:#}");
        }
    }
}

/// With swap, a task at its memory limit is swapped out and goes on. Swapped pages stay charged to memory+swap, until
/// that is full as well.
#[test]
fn what_is_swapped_out_is_charged_as_swap() -> Result<()> {
    live(|| {
        let swap = match Swap::on() {
            Ok(swap) => swap,
            Err(error) => {
                skip(&name(), &format!("swap cannot be enabled: {error:#}"));
                return Ok(());
            }
        };
        lazily_freed_memory_goes_first()?;
        // Only the kernel's own reclaim removes pages swapped to a disk from memory: see docs/limitations.md.
        let cgroup = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::beside(&cgroup)? else {
            skip(&name(), kernel_cgroup::ABSENT);
            return Ok(());
        };
        let limits = ["--limit", &size(LIMIT), "--memsw-limit", &size(4 * LIMIT)];
        if !kernel.is_v2() {
            // On v1 the kernel reclaims, at a limit lower than ours.
            kernel.limit(Some(LIMIT - LIMIT / 4))?;
        }
        let engine = Engine::start(["--cgroup", cgroup.path()].into_iter().chain(limits))?;
        let mut within = HogBuilder::pages(2 * LIMIT).kernel(Some(&kernel)).start(&cgroup)?;
        within.has_all()?;
        ensure!(within.lives() && !killed(&engine)?, "there is room in swap");
        let counter = try_poll_until(SOON, "swap to be charged", || {
            let show = engine.show()?;
            let counter = show.cgroup(cgroup.path())?.clone();
            Ok((counter.memsw.usage >= counter.memory.usage + LIMIT / 2 * PAGE).then_some(counter))
        })?;
        ensure!(counter.memory.usage <= LIMIT * PAGE, "{counter:?}");
        eprintln!("{} in memory, {} with swap", counter.memory.usage, counter.memsw.usage);
        drop(within);
        try_poll_until(SOON, "swap to be given back", || {
            memstock_tests::lru::drain()?;
            let show = engine.show()?;
            let counter = show.cgroup(cgroup.path())?;
            Ok((counter.memsw.usage == counter.memory.usage).then_some(()))
        })?;
        engine.stop()?;
        drop(swap);
        Ok(())
    })
}

/// At a limit of memory alone, at which pages may go to swap: nobody is killed, and nothing has to.
fn lazily_freed_memory_goes_first() -> Result<()> {
    let cgroup = TestCgroup::new()?;
    let engine = Engine::limited(LIMIT, &[&cgroup])?;
    let order = Order { first: 3000, more: 2000, lazyfree: true, ..Order::default() };
    let mut task = Grower::start(&cgroup, &order)?;
    ensure!(task.grow() && task.lives(), "it was killed: {:?}", engine.events()?);
    engine.stop().map(drop)
}

fn killed(engine: &Engine) -> Result<bool> {
    Ok(engine.events()?.iter().any(|event| event.kind == "oom-kill"))
}
