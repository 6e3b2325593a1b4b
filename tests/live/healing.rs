//! A missed free is repaired when the page is allocated again, by `memstock audit --repair`, or by the daemon, which
//! looks for it when the kernel has skipped runs of the probes. Conservation holds all the time.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aya::programs::links::PinnedLink;
use aya::programs::{RawTracePoint, loaded_links};
use memstock::engine::object::{AGAIN, charging};
use memstock::engine::pins::Pins;
use memstock::host;
use memstock_tests::audit::{Audit, beside};
use memstock_tests::hotplug::{CpuOffline, can_go_offline};
use memstock_tests::live::name;
use memstock_tests::poll::{SOON, poll_until, try_poll_until};
use memstock_tests::process::{Process, Program};
use memstock_tests::skip::skip;
use memstock_tests::{Engine, KernelCgroup, Task, TestCgroup, free_lists, live, lru};

/// The programs of the engine that see pages being freed, and their tracepoints.
fn free_probes(pins: &Pins) -> impl Iterator<Item = (&'static str, &'static str)> {
    let sees = |tracepoint| ["mm_page_free", "mm_page_pcpu_drain"].contains(&tracepoint);
    let again = AGAIN.map(|(again, _, tracepoint)| (again, tracepoint));
    let is_there = |program| pins.program(program).exists();
    charging().chain(again).filter(move |&(program, it)| sees(it) && is_there(program))
}

const PAGES: u64 = 20_000;
/// Page tables for them, of each level, and for a partial one at either end.
const TABLES: u64 = PAGES / 512 + 8;
/// The task's CPU.
const CPU: u32 = 1;
const CANNOT: &str = "CPU 1 cannot be taken offline here";

/// Detaches the programs that see frees, by removing their links' only pins, and waits until the kernel has done so.
fn blind(pins: &Pins) -> Result<()> {
    let mut ids = Vec::new();
    for (program, tracepoint) in free_probes(pins) {
        let link = PinnedLink::from_pin(pins.link(program, tracepoint))?.unpin()?;
        ids.push(link.info()?.id());
    }
    // A link that vanishes between being listed and being opened is gone, too.
    let is_there = |id: &u32| loaded_links().flatten().any(|link| link.id() == *id);
    poll_until(SOON, "the end of the links", || (!ids.iter().any(is_there)).then_some(()))
}

/// Attaches them again, until the returned programs are dropped.
fn see(pins: &Pins) -> Result<Vec<RawTracePoint>> {
    let attached = free_probes(pins).map(|(program, tracepoint)| {
        let mut program = RawTracePoint::from_pin(pins.program(program))?;
        program.attach(tracepoint)?;
        Ok(program)
    });
    attached.collect()
}

/// An engine that has missed frees of a task in its cgroup.
struct Lost {
    engine: Engine,
    task: Task,
    cgroup: TestCgroup,
    _probes: Vec<RawTracePoint>,
    /// Pages that the task itself owns.
    own: i64,
}

impl Lost {
    fn new(nr_pages: u64) -> Result<Self> {
        let cgroup = TestCgroup::new()?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let pins = Pins::on(Path::new(host::BPFFS));
        let mut task = Task::start(&cgroup, Some(CPU))?;
        let own = engine.used_at_rest(&cgroup)?.cast_signed();
        task.touch(nr_pages)?;
        lru::drain()?;
        blind(&pins)?;
        task.ask("drop")?;
        // The pages are on the CPU's free list, where they do not count as free. A CPU that goes offline empties its
        // list.
        CpuOffline::take(CPU)?.back()?;
        let probes = see(&pins)?;
        let lost = Self { engine, task, cgroup, _probes: probes, own };
        let audit = checked(&lost.engine)?;
        eprintln!("{} stale of {} owned", audit.stale, audit.owned);
        let owned = audit.cgroup(lost.cgroup.path())?.owned;
        // Exact except for pages that others have allocated since, which heals them.
        ensure!(owned <= own + nr_pages.cast_signed(), "{owned} pages are too many: {audit:#?}");
        ensure!(audit.stale > nr_pages / 2 && audit.stale <= nr_pages, "not lost: {audit:#?}");
        Ok(lost)
    }
}

/// An audit that must add up to the page, whatever was missed.
fn checked(engine: &Engine) -> Result<Audit> {
    let audit = engine.audit_at_rest::<&str>(&[])?;
    engine.show()?.check()?;
    Ok(audit)
}

#[test]
#[ignore = "long"]
fn what_is_allocated_again_is_healed() -> Result<()> {
    live(|| {
        if !can_go_offline(CPU) {
            skip(&name(), CANNOT);
            return Ok(());
        }
        let mut lost = Lost::new(PAGES)?;
        let healed = || Ok::<_, anyhow::Error>(i64::try_from(lost.engine.show()?.loss.healed)?);
        // Read before and after each audit, since anything on the host may allocate a page in between.
        let (earliest, before, early) = (healed()?, checked(&lost.engine)?, healed()?);
        // It does not matter who allocates: a tracked task, or this untracked one.
        lost.task.touch(PAGES)?;
        free_lists::turn_over()?;
        let (late, audit, latest) = (healed()?, checked(&lost.engine)?, healed()?);
        let (least, most) = (late - early, latest - earliest);
        eprintln!(
            "{} stale, {} of them still, {least} to {most} healed",
            before.stale, audit.stale
        );
        ensure!(audit.stale < before.stale && least > 0, "nothing was healed: {audit:#?}");
        // Each healed page was uncharged when it was allocated, and the task has PAGES again. The number of stale pages
        // is less exact: a page on a CPU's free list does not count as free.
        let [owned_before, owned] = [&before, &audit].map(|audit| audit.cgroup(lost.cgroup.path()));
        let (owned_before, owned) = (owned_before?.owned, owned?.owned);
        let more = owned - owned_before;
        let (pages, tables) = (PAGES.cast_signed(), TABLES.cast_signed());
        let right = more + most >= pages && more + least <= pages + tables;
        ensure!(right, "{more} pages more, {least} to {most} healed: {audit:#?}");
        lost.task.ask("drop")?;
        lru::drain()?;
        let audit = checked(&lost.engine)?;
        let owned = audit.cgroup(lost.cgroup.path())?.owned;
        let stale = i64::try_from(audit.stale)?;
        ensure!(owned >= lost.own + stale, "less than nothing is left: {audit:#?}");
        let Lost { engine, task, .. } = lost;
        drop(task);
        engine.stop().map(drop)
    })
}

#[test]
fn a_repair_takes_what_is_stale() -> Result<()> {
    live(|| {
        if !can_go_offline(CPU) {
            skip(&name(), CANNOT);
            return Ok(());
        }
        let lost = Lost::new(PAGES)?;
        let before = checked(&lost.engine)?;
        let report = lost.engine.audit(["--repair"])?;
        let repaired = report.repaired.as_ref().context("what was repaired")?;
        ensure!(repaired.adopted == 0, "there was nothing to adopt: {report:#?}");
        // Pages back on a CPU's free list, or allocated in bulk, do not count as free. But if the kernel's controller
        // knows the cgroup, it shows that they have no owner, and all lost pages may be repaired.
        let most = if report.kernel.is_some() { PAGES + TABLES } else { before.stale };
        ensure!((1..=most).contains(&repaired.disowned), "{report:#?}");
        // Others may have allocated some of them meanwhile.
        let after = checked(&lost.engine)?;
        eprintln!("{} stale, {} repaired, {} left", before.stale, repaired.disowned, after.stale);
        ensure!(after.stale == 0, "a repair repairs all that is stale: {after:#?}");
        let owned = after.cgroup(lost.cgroup.path())?.owned;
        ensure!(owned >= lost.own, "{owned} pages, but the task has {}: {after:#?}", lost.own);
        let Lost { engine, task, .. } = lost;
        drop(task);
        engine.stop().map(drop)
    })
}

/// What the kernel charges and memstock does not, here because it was there before.
#[test]
fn a_repair_adopts_what_only_the_kernel_charges() -> Result<()> {
    const HELD: u64 = PAGES / 10;
    live(|| {
        let cgroup = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::beside(&cgroup)? else {
            skip(&name(), "the kernel has no memory controller here");
            return Ok(());
        };
        let mut task = Task::start_in_both(&cgroup, &kernel, None)?;
        task.touch(HELD)?;
        let engine = Engine::start(["--cgroup", cgroup.path()])?;
        let repair = beside(&cgroup, &kernel).into_iter().chain(["--repair".to_owned()]);
        let audit = engine.audit(repair)?;
        let adopted = audit.repaired.as_ref().context("what was repaired")?.adopted;
        ensure!(adopted >= HELD, "{adopted} of {HELD} pages: {audit:#?}");
        let used = engine.show()?.cgroup(cgroup.path())?.used_pages();
        ensure!(used >= HELD, "{used} of {HELD} pages are charged");
        drop(task);
        engine.stop().map(drop)
    })
}

/// Starts programs that do nothing but fork. Their page tables are freed in interrupts, some of them while a probe
/// runs, and then the kernel skips the probe's run for the free.
fn storm() -> Result<Vec<Process>> {
    let fork = |_| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "while :; do (:); done"]);
        Program::from(shell).start()
    };
    (0..4).map(fork).collect()
}

#[test]
#[ignore = "long"]
fn the_daemon_finds_what_was_lost() -> Result<()> {
    live(|| {
        if !can_go_offline(CPU) {
            skip(&name(), CANNOT);
            return Ok(());
        }
        // The lost pages may be anywhere, so the daemon must scan the whole map.
        let lost = Lost::new(PAGES / 10)?;
        let skipped = || Ok::<_, anyhow::Error>(lost.engine.show()?.loss.recursion_misses);
        let before = skipped()?;
        let storm = storm()?;
        // The daemon does not scan until it knows of a skipped run.
        try_poll_until(
            3 * SOON,
            "a run to be skipped",
            || Ok((skipped()? > before).then_some(())),
        )?;
        drop(storm);
        let start = Instant::now();
        // With 24 GiB, scanning the whole map takes a quarter of a second of CPU time in an unoptimized build. The
        // daemon uses a hundredth of a CPU for it, so it takes 25 s.
        let audit = try_poll_until(3 * SOON, "what was lost to be found", || {
            let audit = checked(&lost.engine)?;
            let owned = audit.cgroup(lost.cgroup.path())?.owned;
            // `stale` does not include pages on a CPU's free list, which no flag marks, so check `owned` too.
            Ok((audit.stale == 0 && owned <= lost.own + TABLES.cast_signed()).then_some(audit))
        })?;
        eprintln!("found within {:?}: {} healed", start.elapsed(), lost.engine.show()?.loss.healed);
        ensure!(
            audit.cgroup(lost.cgroup.path())?.owned >= lost.own,
            "more was taken than was lost: {audit:#?}"
        );
        let Lost { engine, task, .. } = lost;
        drop(task);
        engine.stop().map(drop)
    })
}
