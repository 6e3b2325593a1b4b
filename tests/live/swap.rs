//! Memory+swap, on a host with swap.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memstock_tests::audit::beside;
use memstock_tests::dialogue::WorkloadProcess;
use memstock_tests::growing::{Grower, resident_pages};
use memstock_tests::hog::{Hog, HogBuilder, size};
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::process::{Program, memstock};
use memstock_tests::skip::skip;
use memstock_tests::task::enter_both;
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
        enable(&file)?;
        Ok(swap)
    }

    /// None, and the test is skipped, where swap cannot be enabled.
    fn on_or_skip() -> Option<Self> {
        Self::on()
            .inspect_err(|error| skip(&name(), &format!("swap cannot be enabled: {error:#}")))
            .ok()
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("swap")
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        disable(&self.file());
    }
}

fn enable(area: &Path) -> Result<()> {
    for program in ["mkswap", "swapon"] {
        let mut command = Command::new(program);
        command.arg(area);
        let done = Program::from(command).finish(SOON)?;
        ensure!(done.code() == 0, "{program}: {done:?}");
    }
    Ok(())
}

fn disable(area: &Path) {
    let mut command = Command::new("swapoff");
    command.arg(area);
    if let Err(error) = Program::from(command).finish(3 * SOON) {
        eprintln!("{error:#}");
    }
}

/// Swap in compressed memory, of the test's own: the number of its device.
struct Zram(String);

const ZRAM: &str = "/sys/class/zram-control";

impl Zram {
    fn on() -> Result<Self> {
        let number = fs::read_to_string(format!("{ZRAM}/hot_add"))?;
        let zram = Self(number.trim().to_owned());
        fs::write(format!("/sys/block/zram{}/disksize", zram.0), "64M")?;
        enable(&zram.device())?;
        Ok(zram)
    }

    fn device(&self) -> PathBuf {
        format!("/dev/zram{}", self.0).into()
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        disable(&self.device());
        for (file, value) in [
            (format!("/sys/block/zram{}/reset", self.0), "1"),
            (format!("{ZRAM}/hot_remove"), &self.0),
        ] {
            if let Err(error) = fs::write(&file, value) {
                eprintln!("{file}: {error}");
            }
        }
    }
}

/// A cgroup of the cpuset controller of cgroup v1, whatever is in it: as long as there is one, the kernel adds
/// `__GFP_HARDWALL` to all allocations.
struct Cpuset(PathBuf);

impl Cpuset {
    fn new() -> Result<Self> {
        let dir = Path::new("/sys/fs/cgroup/cpuset")
            .join(format!("memstock-test-{}", std::process::id()));
        fs::create_dir(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Cpuset {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// The memory of the device belongs to nobody, as in the kernel.
#[test]
fn compressed_swap_is_nobodys() -> Result<()> {
    live(|| {
        if !Path::new(ZRAM).exists() || !Path::new("/sys/fs/cgroup/cpuset/cpuset.cpus").exists() {
            skip(&name(), "there is no zram, or no cpuset controller of cgroup v1");
            return Ok(());
        }
        let (_zram, _cpuset) = (Zram::on()?, Cpuset::new()?);
        let cgroup = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::beside(&cgroup)? else {
            skip(&name(), kernel_cgroup::ABSENT);
            return Ok(());
        };
        kernel.limit(Some(LIMIT))?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let mut hog = HogBuilder::pages(3 * LIMIT).kernel(Some(&kernel)).start(&cgroup)?;
        hog.has_all()?;
        let resident = resident_pages(hog.id()).context("it has ended")?;
        ensure!(resident <= LIMIT, "{resident} pages are resident: nothing was swapped out");
        let audit = engine.audit_at_rest(&beside(&cgroup, &kernel))?;
        let user = audit.agreement()?.counts;
        ensure!(user.both > LIMIT / 2 && user.only_ours == 0, "{audit}");
        drop(hog);
        engine.stop().map(drop)
    })
}

/// With swap, a task at its memory limit is swapped out and goes on. Swapped pages stay charged to memory+swap, until
/// that is full as well.
#[test]
fn what_is_swapped_out_is_charged_as_swap() -> Result<()> {
    live(|| {
        let Some(swap) = Swap::on_or_skip() else { return Ok(()) };
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
        let engine = Engine::start_adopting(["--cgroup", cgroup.path()].into_iter().chain(limits))?;
        let within = swapped_out(&engine, &cgroup, &kernel)?;
        drop(within);
        try_poll_until(SOON, "swap to be given back", || {
            memstock_tests::lru::drain()?;
            let show = engine.show()?;
            let counter = show.cgroup(cgroup.path())?;
            Ok((counter.memsw.usage == counter.memory.usage).then_some(()))
        })?;
        let within = swapped_out(&engine, &cgroup, &kernel)?;
        kernel.limit(None)?;
        come_back(&engine, &cgroup, || drop(swap), &within)?;
        drop(within);
        try_poll_until(SOON, "all to be given back", || {
            memstock_tests::lru::drain()?;
            let show = engine.show()?;
            Ok((show.cgroup(cgroup.path())?.memory.needed < LIMIT / 8 * PAGE).then_some(()))
        })?;
        engine.stop().map(drop)
    })
}

/// A task that goes on with half of its memory in swap.
fn swapped_out(engine: &Engine, cgroup: &TestCgroup, kernel: &KernelCgroup) -> Result<Hog> {
    let mut task = HogBuilder::pages(2 * LIMIT).kernel(Some(kernel)).start(cgroup)?;
    task.has_all()?;
    ensure!(task.lives() && !killed(engine)?, "there is room in swap");
    let counter = try_poll_until(SOON, "swap to be charged", || {
        let show = engine.show()?;
        let counter = show.cgroup(cgroup.path())?.clone();
        Ok((counter.memsw.usage >= counter.memory.usage + LIMIT / 2 * PAGE).then_some(counter))
    })?;
    ensure!(counter.memory.usage <= LIMIT * PAGE, "{counter:?}");
    eprintln!("{} in memory, {} with swap", counter.memory.usage, counter.memsw.usage);
    Ok(task)
}

/// What `swapoff` brings back, in a cgroup that is not tracked, is charged to who has it, and no longer as swap.
fn come_back(
    engine: &Engine,
    cgroup: &TestCgroup,
    swapoff: impl FnOnce(),
    task: &Hog,
) -> Result<()> {
    // It would be killed for it.
    let free = ["limit", cgroup.path(), "--memory", "max", "--memsw", "max"];
    let free = memstock(free)?.finish(SOON)?;
    ensure!(free.code() == 0, "the limits are not lifted");
    swapoff();
    let resident = resident_pages(task.id()).context("it has ended")?;
    ensure!(resident > 2 * LIMIT, "{resident} pages are resident");
    try_poll_until(3 * SOON, "what was in swap to be charged", || {
        let show = engine.show()?;
        let counter = show.cgroup(cgroup.path())?;
        let is_all = counter.memory.usage >= (2 * LIMIT) * PAGE;
        Ok((is_all && counter.memsw.usage == counter.memory.usage).then_some(()))
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

#[test]
fn swap_is_counted_once_and_goes_with_its_victim() -> Result<()> {
    live(|| {
        let Some(swap) = Swap::on_or_skip() else { return Ok(()) };
        let cgroup = TestCgroup::new()?;
        let kernel = KernelCgroup::beside(&cgroup)?.filter(|kernel| !kernel.is_v2());
        let Some(kernel) = kernel else {
            skip(&name(), "there is no memory controller of cgroup v1");
            return Ok(());
        };
        kernel.limit(Some(LIMIT / 16))?;
        let limit = size(16 * LIMIT);
        let limits = ["--cgroup", cgroup.path(), "--limit", &limit, "--memsw-limit", &limit];
        let engine = Engine::start(limits)?;
        shared_since_a_fork(&engine, &cgroup, &kernel)?;
        of_a_victim(&engine, &cgroup, &kernel)?;
        engine.stop()?;
        drop(swap);
        Ok(())
    })
}

/// Four processes have the same pages in swap.
fn shared_since_a_fork(engine: &Engine, cgroup: &TestCgroup, kernel: &KernelCgroup) -> Result<()> {
    let script =
        "$| = 1; $all = 'x' x $ARGV[0]; for (1..3) { fork or last } print \"ready\\n\"; <STDIN>";
    kernel.limit(None)?;
    let mut command = Command::new("perl");
    command.args(["-e", script, &(2 * LIMIT * PAGE).to_string()]);
    enter_both(&mut command, cgroup, kernel)?;
    let mut perl = WorkloadProcess::start(command)?;
    for _ in 0..4 {
        ensure!(perl.hear(SOON)? == "ready");
    }
    let mut memsw = 0;
    // The second reading is of more, so it began when the first part was in swap already.
    for (limit, least) in [(LIMIT / 2, LIMIT), (LIMIT / 16, LIMIT + LIMIT * 3 / 4)] {
        kernel.limit(Some(limit))?;
        memsw = memsw_with(engine, cgroup, least)?;
    }
    let kernels = fs::read_to_string(kernel.dir().join("memory.memsw.usage_in_bytes"))?;
    let kernels = kernels.trim().parse::<u64>()? / PAGE;
    // Page tables and stocks, and what moves between the two readings: a few hundred pages; a second count is 8,192.
    ensure!(memsw.abs_diff(kernels) < LIMIT / 4, "{memsw} pages, of the kernel's {kernels}");
    drop(perl);
    try_poll_until(SOON, "swap to be given back", || {
        let show = engine.show()?;
        let counter = show.cgroup(cgroup.path())?;
        Ok((counter.memsw.usage == counter.memory.usage).then_some(()))
    })
}

/// Pages of memory and swap, once at least so many are in swap.
fn memsw_with(engine: &Engine, cgroup: &TestCgroup, swapped: u64) -> Result<u64> {
    try_poll_until(SOON, "swap to be charged", || {
        let show = engine.show()?;
        let counter = show.cgroup(cgroup.path())?;
        let is_swapped = counter.memsw.usage >= counter.memory.usage + swapped * PAGE;
        Ok(is_swapped.then_some(counter.memsw.usage / PAGE))
    })
}

/// What a victim had in swap is no reason to kill another.
fn of_a_victim(engine: &Engine, cgroup: &TestCgroup, kernel: &KernelCgroup) -> Result<()> {
    let mut large = HogBuilder::pages(2 * LIMIT).kernel(Some(kernel)).start(cgroup)?;
    large.has_all()?;
    let mut others =
        [HogBuilder::pages(LIMIT / 2).start(cgroup)?, HogBuilder::pages(LIMIT / 2).start(cgroup)?];
    for other in &mut others {
        other.has_all()?;
    }
    let used = memsw_with(engine, cgroup, LIMIT)?;
    let lower = size(used - LIMIT / 2);
    let set = ["limit", cgroup.path(), "--memory", &lower, "--memsw", &lower, "--force"];
    let set = memstock(set)?.finish(SOON)?;
    ensure!(set.code() == 0, "{set:?}");
    large.was_killed()?;
    try_poll_until(SOON, "the limit to be kept", || {
        let show = engine.show()?;
        let counter = show.cgroup(cgroup.path())?;
        Ok((counter.memsw.usage / PAGE <= used - LIMIT / 2).then_some(()))
    })?;
    let killed = engine.events()?.iter().filter(|event| event.kind == "oom-kill").count();
    ensure!(killed == 1 && others.iter_mut().all(Hog::lives), "{killed} were killed");
    Ok(())
}
