//! The engine adopts exactly the pages that a cgroup's tasks hold when it starts, even if the tasks go on allocating
//! and freeing meanwhile.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use memstock_tests::audit::{Audit, beside};
use memstock_tests::holder::Unavailable;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::kpages::Census;
use memstock_tests::live::{live, name};
use memstock_tests::load::{Frozen, Load};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, KernelCgroup, PAGE, TestCgroup, lru, scaled};

/// A holder with its memory, in a cgroup of its own both in memstock and in the kernel.
struct Case {
    mode: Mode,
    holder: Option<Holder>,
    cgroup: TestCgroup,
    kernel: KernelCgroup,
    promised: u64,
}

/// Chooses the kernel's cgroup for a test's cgroup.
type Beside = fn(&TestCgroup) -> Result<Option<KernelCgroup>>;

/// Several cases, filled before the engine starts.
struct Fixture {
    cases: Vec<Case>,
    top: TestCgroup,
    kernel_top: KernelCgroup,
}

impl Fixture {
    /// `None` if the kernel does no accounting of its own here.
    fn open(modes: &[Mode], beside: Beside) -> Result<Option<Self>> {
        let top = TestCgroup::new()?;
        let Some(kernel_top) = beside(&top)? else {
            skip(&name(), ABSENT);
            return Ok(None);
        };
        let mut cases = Vec::new();
        for &mode in modes {
            let (cgroup, kernel) = (top.child(&mode.name())?, kernel_top.child(&mode.name())?);
            let mut holder = Holder::of(mode).pages(600).cgroup(&cgroup).kernel(&kernel).start()?;
            match holder.get() {
                Ok(promised) => {
                    cases.push(Case { mode, holder: Some(holder), cgroup, kernel, promised });
                }
                Err(error) if error.is::<Unavailable>() => {
                    skip(&name(), &format!("{}: {error}", mode.name()));
                }
                Err(error) => return Err(error.context(mode.name())),
            }
        }
        lru::drain()?;
        Ok(Some(Self { cases, top, kernel_top }))
    }

    fn census(&self) -> Result<Census> {
        let inodes = self.cases.iter().map(|case| case.kernel.inode());
        Census::take(&inodes.collect::<Result<Vec<_>>>()?)
    }

    fn audit(&self, engine: &Engine) -> Result<Audit> {
        adopted(engine)?;
        engine.audit_at_rest(&beside(&self.top, &self.kernel_top))
    }
}

/// Waits until the adoption has ended: only then does the daemon print tables.
fn adopted(engine: &Engine) -> Result<()> {
    let start = Instant::now();
    let printed = || Ok((!engine.stdout()?.is_empty()).then_some(()));
    // An unoptimised daemon needs some 3 s of CPU time. Beside busy tasks it gets a fifth of a CPU, so it usually
    // takes 14 s; each child of the fork storm adds as much again.
    try_poll_until(4 * SOON, "the first table", printed)?;
    eprintln!("adopted in {:.1?}", start.elapsed());
    Ok(())
}

/// Adopts by the kernel's own figures, page by page and to the exact number.
#[test]
#[ignore = "long"]
fn what_the_kernel_charges_is_adopted() -> Result<()> {
    const MODES: [Mode; 10] = [
        Mode::AnonWrite,
        Mode::Mlock,
        Mode::Huge,
        Mode::HugePartial,
        Mode::SharedAnon,
        Mode::SysvShm,
        Mode::TmpfsWrite,
        Mode::FileWrite,
        Mode::MmapFileShared,
        Mode::ForkWrite,
    ];
    live(|| {
        let Some(mut fixture) = Fixture::open(&MODES, KernelCgroup::pair_of)? else {
            return Ok(());
        };
        let engine = Engine::start_adopting(["--cgroup", fixture.top.path()])?;
        let audit = fixture.audit(&engine)?;
        eprintln!("{audit}");
        // An audit finds the kernel's cgroup by itself, too.
        ensure!(
            engine.audit::<&str>([])?.agreement()?.counts.both > 0,
            "there is nothing beside it"
        );
        ensure!(audit.agreement()?.counts.different() == 0, "{audit}");
        ensure!(audit.kind("page table").different() == 0, "{audit}");
        let census = fixture.census()?;
        for case in &fixture.cases {
            let cgroup = audit.cgroup(case.cgroup.path())?;
            let kernels = census.of(case.kernel.inode()?);
            let mode = case.mode.name();
            // The rest of the kernel's pages are stacks, at most 32 KiB for each of three tasks (the holder, its
            // child, the one that started it). A running engine would not have seen them either.
            let expected = kernels.user..=kernels.user + kernels.kernel;
            let owned = u64::try_from(cgroup.owned)?;
            ensure!(expected.contains(&owned), "{mode}: {owned} owned, {kernels:?}");
            ensure!(kernels.user + kernels.kernel - owned <= 24, "{mode}: {owned}, {kernels:?}");
            ensure!(owned >= case.promised, "{mode}: {owned} of {}", case.promised);
        }
        // Adopted pages are uncharged like any others when they are given back.
        for case in &mut fixture.cases {
            let mut holder = case.holder.take().context("a holder")?;
            holder.give().with_context(|| case.mode.name())?;
            holder.kill()?;
        }
        gone(&engine, &fixture)?;
        engine.stop().map(drop)
    })
}

/// Waits until only metadata of the disk's file system is left. memstock does not see all of it: ext4 caches the free
/// blocks of its block groups in unmovable pages.
fn gone(engine: &Engine, fixture: &Fixture) -> Result<()> {
    const METADATA: u64 = 64;
    let mut last = String::new();
    try_poll_until(SOON, "the end of all pages", || {
        lru::drain()?;
        let audit = engine.audit(beside(&fixture.top, &fixture.kernel_top))?;
        last = audit.to_string();
        let user = audit.agreement()?.counts;
        let seen = (user.only_ours, user.other) == (0, 0) && user.both == audit.owned;
        if audit.exact && seen && user.either() <= METADATA {
            return audit.check().map(Some);
        }
        engine.heal()?;
        Ok(None)
    })
    .context(last)
}

/// Without the kernel's help, memory that only the cgroup's tasks have mapped is adopted.
#[test]
fn what_tasks_have_mapped_is_adopted() -> Result<()> {
    const MODES: [Mode; 8] = [
        Mode::AnonWrite,
        Mode::AnonReadWrite,
        Mode::Mlock,
        Mode::Huge,
        Mode::SharedAnon,
        Mode::Memfd,
        Mode::MmapFileShared,
        Mode::ForkWrite,
    ];
    live(|| {
        let Some(mut fixture) = Fixture::open(&MODES, KernelCgroup::beside)? else {
            return Ok(());
        };
        let engine = Engine::start_adopting(["--cgroup", fixture.top.path()])?;
        let audit = fixture.audit(&engine)?;
        eprintln!("{audit}");
        // It adopts nothing else but the program's file, which only tasks in here have mapped.
        for kind in ["anonymous", "shared"] {
            let counts = audit.kind(kind);
            ensure!((counts.only_ours, counts.other) == (0, 0), "{kind}: {audit}");
        }
        for case in &fixture.cases {
            let cgroup = audit.cgroup(case.cgroup.path())?;
            let counts = cgroup.kernel.context("no comparison")?.counts;
            let mode = case.mode.name();
            ensure!(counts.both >= case.promised, "{mode}: {counts:?} of {}", case.promised);
            ensure!(counts.other == 0, "{mode}: {counts:?}");
        }
        for case in &mut fixture.cases {
            let mut holder = case.holder.take().context("a holder")?;
            holder.give().with_context(|| case.mode.name())?;
            holder.kill()?;
        }
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// Pages of a file to copy.
const COPIED: u32 = 800;

/// Pages that ext4 may have cached for the copies so far, unseen by memstock: two for each group of 128 MiB in which
/// it looks for free blocks. Each file goes behind the last one (`s_mb_last_group`), so on a mostly unwritten disk it
/// reads as many groups for the first time as it fills.
fn groups_of_blocks(load: &Load) -> u64 {
    const GROUP: u64 = 128 << 20;
    // The sources and copies, including those in progress.
    let files = 2 * (load.rounds(&Mode::FileCopy.name()) + 1);
    2 * ((files * u64::from(COPIED) * PAGE).div_ceil(GROUP) + 1)
}

/// Pages are allocated and freed on both CPUs during the adoption.
#[test]
#[ignore = "long"]
fn adopting_under_load_does_no_harm() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::pair_of(&top)? else {
            skip(&name(), ABSENT);
            return Ok(());
        };
        let (a, b) = (top.child("a")?, top.child("b")?);
        let mut load = Load::default();
        let mut left_out = Vec::new();
        load.wander(&[&a, &b, &top], Some(&kernel), 0)?;
        load.wander(&[&b, &a], Some(&kernel), 1)?;
        load.spawn(&a, Some(&kernel))?;
        for (mode, pages, cgroup) in [
            (Mode::AnonReadWrite, 3000, &a),
            (Mode::HugePartial, 4096, &b),
            (Mode::TmpfsWrite, 2500, &top),
            (Mode::FileCopy, COPIED, &a),
            (Mode::ForkStorm, 100, &b),
        ] {
            left_out.extend(load.hold(mode, pages, cgroup, Some(&kernel))?);
        }
        for round in 0..scaled(4) {
            let engine = Engine::start_adopting(["--cgroup", top.path()])?;
            load.check()?;
            adopted(&engine)?;
            let frozen = Frozen::freeze(&top)?;
            lru::drain()?;
            let audit = engine.audit_at_rest(&beside(&top, &kernel))?;
            eprintln!("round {round}: {audit}");
            let counts = audit.agreement()?.counts;
            let metadata = audit.kind("file").only_kernels.min(groups_of_blocks(&load));
            let (different, all) = (counts.different() - metadata, counts.either() - metadata);
            ensure!(different * 1000 <= all, "round {round}, {metadata} pages for ext4: {audit}");
            drop(frozen);
            engine.stop()?;
        }
        load.end()?;
        if !left_out.is_empty() {
            skip(&name(), &left_out.join("; "));
        }
        Ok(())
    })
}
