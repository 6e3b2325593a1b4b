//! memstock charges what the kernel charges, page by page at each step, for every way in which a program gets and gives
//! back memory.

use std::fs;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use memstock_tests::audit::{Audit, beside};
use memstock_tests::holder::Unavailable;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::kpages::Census;
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::{Mode, Place};
use memstock_tests::{
    Engine, Holder, KernelCgroup, Migrations, PAGE, Resident, Show, TestCgroup, binaries, lru,
    release,
};

/// A holder in a cgroup of its own, on both sides.
struct Case {
    mode: Mode,
    pages: u32,
    // Dropped in this order: the cgroups must be empty.
    holder: Option<Holder>,
    cgroup: TestCgroup,
    kernel: KernelCgroup,
    /// User pages that it had before it got anything, by both sides.
    own: u64,
    promised: u64,
}

/// All cases below one tracked cgroup, since an audit takes as long for one as for all.
struct Fixture {
    cases: Vec<Case>,
    unavailable: Vec<String>,
    top: TestCgroup,
    kernel_top: KernelCgroup,
    /// Keeps the program in memory: a holder that read a page of it again would be charged.
    _files: Resident,
}

/// The figures of both sides at a moment when they agree.
struct Reading {
    audit: Audit,
    census: Census,
    /// From before and after the census, since page cache may be reclaimed at any time.
    shows: [Show; 2],
    /// Pages that the kernel has moved unseen since the engine started.
    moved: u64,
}

impl Fixture {
    /// `None` if the kernel does no accounting of its own here.
    fn open(modes: &[(Mode, u32)]) -> Result<Option<Self>> {
        let top = TestCgroup::new()?;
        let Some(kernel_top) = KernelCgroup::beside(&top)? else {
            skip(&name(), ABSENT);
            return Ok(None);
        };
        let mut cases = Vec::new();
        for &(mode, pages) in modes {
            let (cgroup, kernel) = (top.child(&mode.name())?, kernel_top.child(&mode.name())?);
            cases.push(Case { mode, pages, holder: None, cgroup, kernel, own: 0, promised: 0 });
        }
        let _files = Resident::program(&binaries::workload()?)?;
        Ok(Some(Self { cases, unavailable: Vec::new(), top, kernel_top, _files }))
    }

    /// Starts the engine before the holders, so that it sees the whole life of their pages.
    fn start(&mut self) -> Result<Engine> {
        let engine = Engine::start(["--cgroup", self.top.path()])?;
        try_poll_until(SOON, "all cgroups to be tracked", || {
            let show = engine.show()?;
            let mut cases = self.cases.iter();
            Ok(cases.all(|case| show.cgroup(case.cgroup.path()).is_ok()).then_some(()))
        })?;
        for case in &mut self.cases {
            let builder = Holder::of(case.mode).pages(case.pages);
            let holder = builder.cgroup(&case.cgroup).kernel(&case.kernel).start();
            case.holder = Some(holder.with_context(|| case.mode.name())?);
        }
        Ok(engine)
    }

    /// All holders get their memory; cases whose mode is unavailable here are removed.
    fn get(&mut self) -> Result<()> {
        let mut stay = Vec::new();
        for mut case in self.cases.drain(..) {
            match case.holder.as_mut().context("a holder")?.get() {
                Ok(promised) => {
                    case.promised = promised;
                    stay.push(case);
                }
                Err(error) if error.is::<Unavailable>() => {
                    self.unavailable.push(format!("{}: {error}", case.mode.name()));
                }
                Err(error) => return Err(error.context(case.mode.name())),
            }
        }
        self.cases = stay;
        Ok(())
    }

    fn give(&mut self) -> Result<()> {
        for case in &mut self.cases {
            let holder = case.holder.as_mut().context("a holder")?;
            holder.give().with_context(|| case.mode.name())?;
        }
        Ok(())
    }

    /// Kills the holders with all that they hold, and removes what outlives them.
    fn kill(&mut self) -> Result<()> {
        for case in &mut self.cases {
            let mut holder = case.holder.take().context("a holder")?;
            let status = holder.kill().with_context(|| case.mode.name())?;
            ensure!(!status.success(), "{}: {status}", case.mode.name());
        }
        Ok(())
    }

    /// Waits until both sides agree, and each case has as many [`pages`](Case::pages) as `expected` of it. Nobody allocates any
    /// more, but page tables and AIO rings are freed after a grace period, an orphaned child may take a moment to end,
    /// and a missed free is healed when its page is allocated again.
    fn agree(
        &self,
        engine: &Engine,
        moved: &Migrations,
        moment: &str,
        expected: impl Fn(&Case, &Reading) -> RangeInclusive<u64>,
    ) -> Result<Reading> {
        let mut differences = Vec::new();
        let agreed = try_poll_until(SOON, "the two sides to agree", || {
            lru::drain()?;
            let inodes = self.cases.iter().map(|case| case.kernel.inode());
            let inodes: Vec<u64> = inodes.collect::<Result<_>>()?;
            let (show, census) = (engine.show()?, Census::take(&inodes)?);
            let files = self.cases.iter().map(|case| case.kernel.file_pages());
            let files: Vec<_> = files.collect::<Result<_>>()?;
            let shows = [show, engine.show()?];
            let audit = engine.audit(beside(&self.top, &self.kernel_top))?;
            let reading = Reading { audit, census, shows, moved: moved.unseen()? };
            differences.clear();
            for (case, files) in self.cases.iter().zip(files) {
                differences.extend(case.difference(&reading)?);
                differences.extend(case.file_difference(&reading, files)?);
                let (pages, expected) = (case.pages(&reading)?, expected(case, &reading));
                if !expected.contains(&pages) {
                    let mode = case.mode.name();
                    differences.push(format!("{mode}: {pages} pages, not {expected:?}"));
                }
            }
            differences.extend(page_cache(&reading));
            let agreed = differences.is_empty() && reading.audit.check().is_ok();
            if !agreed {
                differences.push(reading.audit.to_string());
                eprintln!("{moment}, not yet: {}", differences.join("; "));
                engine.heal()?;
            }
            Ok(agreed.then_some(reading))
        });
        let reading = agreed.with_context(|| format!("{moment}: {}", differences.join("; ")))?;
        reading.audit.check()?;
        let missed = reading.shows[1].loss.recursion_misses;
        eprintln!("{moment}: {}; {missed} runs of probes missed", reading.audit);
        Ok(reading)
    }

    fn close(self, engine: Engine) -> Result<()> {
        if !self.unavailable.is_empty() {
            skip(&name(), &self.unavailable.join("; "));
        }
        engine.stop().map(drop)
    }
}

/// Describes pages that only one side counts as page cache, if any. Pages that were moved unseen are the kernel's only.
fn page_cache(reading: &Reading) -> Option<String> {
    let file = reading.audit.file;
    let same = file.only_ours == 0 && file.only_kernels <= reading.moved;
    (!same).then(|| format!("page cache: {file:?}, {} moved", reading.moved))
}

impl Case {
    /// Describes how the two sides differ, if they do: in usage without stock, or in the owner of any user page. User
    /// pages and page tables have no tolerance.
    ///
    /// Another kernel page may stay charged: if the kernel skipped the probe's run for its free, and the page was then
    /// allocated in bulk, such as for a task's stack, which no probe sees. The audit finds such pages charged only by
    /// memstock, and there are no more than skipped runs: none on a machine at rest. Pages that were moved unseen are
    /// charged only by the kernel.
    fn difference(&self, reading: &Reading) -> Result<Option<String>> {
        let ours = reading.audit.kind("kernel").only_ours;
        let kept = ours.min(reading.shows[1].loss.recursion_misses);
        let pages = reading.census.of(self.kernel.inode()?);
        let counts =
            reading.audit.cgroup(self.cgroup.path())?.kernel.context("no comparison")?.counts;
        let mut used = Vec::new();
        for show in &reading.shows {
            used.push(show.cgroup(self.cgroup.path())?.used_pages());
        }
        used.sort_unstable();
        let expected = used[0]..=used[1] + self.stacks() + counts.only_kernels;
        let seen = pages.user + pages.kernel;
        let unseen = self.directories()? + kept;
        let same = *expected.start() <= seen + unseen
            && seen <= *expected.end()
            && (counts.only_ours, counts.other) == (0, 0)
            && counts.only_kernels <= reading.moved;
        let mode = self.mode.name();
        let text = || format!("{mode}: {used:?} used, {pages:?}, {counts:?}, {kept} kept");
        Ok((!same).then(text))
    }

    /// Describes how the two counters of page cache differ. Ours is exact. The kernel adds up its CPUs' counts every
    /// 2 s, or when a count is large enough, so it may be off by a batch per CPU. `kernels` was read between the two looks
    /// at ours: the host may reclaim cache all the time.
    fn file_difference(&self, reading: &Reading, kernels: u64) -> Result<Option<String>> {
        let [before, after] = &reading.shows;
        let path = self.cgroup.path();
        let ours = [before, after].map(|show| show.cgroup(path).map(|c| c.memory.file / PAGE));
        let [before, ours] = ours;
        let (before, ours) = (before?, ours?);
        let slack = reading.shows[0].cpus.len() as u64 * reading.shows[0].batch;
        let fixed = if self.mode.is_unevictable() { self.promised } else { 0 };
        let kernels = kernels.saturating_sub(fixed);
        let expected =
            before.min(ours).saturating_sub(slack)..=before.max(ours) + slack + reading.moved;
        let same = expected.contains(&kernels);
        let mode = self.mode.name();
        Ok((!same).then(|| format!("{mode}: page cache {ours}, the kernel has {kernels}")))
    }

    /// Pages that only the kernel charges: the stack of each task that was started inside, which is allocated in bulk
    /// without a tracepoint. 16 KiB on x86-64, 32 KiB with KASAN.
    fn stacks(&self) -> u64 {
        if self.mode == Mode::ForkWrite && self.holder.is_some() { 8 } else { 0 }
    }

    /// Pages that a census does not see: a page directory is two pages on x86 before Linux 6.15, of which only the
    /// first has an owner there (`PGD_ALLOCATION_ORDER` in arch/x86). One for each process that lives.
    fn directories(&self) -> Result<u64> {
        if cfg!(not(target_arch = "x86_64")) || release()? >= (6, 15) {
            return Ok(0);
        }
        let procs = fs::read_to_string(self.cgroup.dir().join("cgroup.procs"))?;
        Ok(procs.lines().count() as u64)
    }

    /// User pages that may remain: blocks of the disk's file system (bitmaps, inodes, folders) that making files or
    /// looking up a program brings into the cache.
    fn metadata(&self) -> u64 {
        let disk = self.mode.place() == Place::Disk || self.mode == Mode::ExecStorm;
        // For large files also a bitmap and a block of extents per 128 MiB.
        if disk { 16 + 4 * self.promised / 32768 } else { 0 }
    }

    /// User pages more than promised that there may be while it holds its pages.
    fn slack(&self) -> u64 {
        match self.mode {
            // After a fork, both sides copy what they write of the program's own memory, at most all.
            Mode::ForkWrite => self.own,
            _ => self.metadata(),
        }
    }

    /// User pages, on which both sides agree; of a pipe, whose pages are the kernel's own, kernel pages.
    fn pages(&self, reading: &Reading) -> Result<u64> {
        if self.mode == Mode::Pipe {
            return Ok(reading.census.of(self.kernel.inode()?).kernel);
        }
        let cgroup = reading.audit.cgroup(self.cgroup.path())?;
        Ok(cgroup.kernel.context("no comparison")?.counts.both)
    }
}

/// Has holders get and give back memory, and compares both sides after each step.
fn get_and_give(modes: &[(Mode, u32)]) -> Result<()> {
    let Some(mut fixture) = Fixture::open(modes)? else {
        return Ok(());
    };
    let engine = fixture.start()?;
    let moved = Migrations::from_now(&engine)?;
    let before = fixture.agree(&engine, &moved, "before", |_, _| 0..=u64::MAX)?;
    fixture.get()?;
    for case in &mut fixture.cases {
        case.own = case.pages(&before)?;
    }
    fixture.agree(&engine, &moved, "held", |case, reading| {
        // Cache that was unused for a while may have been evicted.
        let is_sure = case.metadata() == 0;
        let most = case.own + case.promised;
        let least = if is_sure { most.saturating_sub(reading.moved) } else { 0 };
        least..=most + case.slack()
    })?;
    fixture.give()?;
    fixture.agree(&engine, &moved, "given back", |case, reading| {
        case.own.saturating_sub(reading.moved)..=case.own + case.metadata()
    })?;
    engine.show()?.check()?;
    fixture.close(engine)
}

fn all_modes() -> Vec<(Mode, u32)> {
    Mode::value_variants().iter().map(|mode| (*mode, 400)).collect()
}

#[test]
fn every_mode_is_charged_as_the_kernel_does() -> Result<()> {
    live(|| get_and_give(&all_modes()))
}

#[test]
fn whoever_is_killed_leaves_nothing_charged() -> Result<()> {
    live(|| {
        let Some(mut fixture) = Fixture::open(&all_modes())? else {
            return Ok(());
        };
        let engine = fixture.start()?;
        let moved = Migrations::from_now(&engine)?;
        fixture.get()?;
        fixture.kill()?;
        fixture.agree(&engine, &moved, "killed", |case, _| 0..=case.metadata())?;
        engine.show()?.check()?;
        fixture.close(engine)
    })
}

/// A file of 1.5 GiB and its copy.
#[test]
#[ignore = "long"]
fn a_copy_of_3_gib() -> Result<()> {
    const PAGES: u32 = 393_216;
    const ROOM: u64 = 5 << 30;
    live(|| {
        let disk = rustix::fs::statvfs("/var/tmp").context("/var/tmp")?;
        if disk.f_bavail * disk.f_frsize < ROOM {
            skip(&name(), "less than 5 GiB free on /var/tmp");
            return Ok(());
        }
        get_and_give(&[(Mode::FileCopy, PAGES)])
    })
}
