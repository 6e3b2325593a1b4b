//! The workload's ways to get memory use as many pages as they promise, by the kernel's own accounting. Otherwise they
//! could prove nothing about memstock's. Needs no memstock.

use std::fs;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use memstock_tests::holder::Unavailable;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::kpages::Census;
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::{Kind, Mode, Place};
use memstock_tests::{Holder, KernelCgroup, Resident, Task, TestCgroup, binaries};

/// A holder in a cgroup of its own.
struct Case {
    mode: Mode,
    // Dropped in this order: the cgroup must be empty.
    holder: Option<Holder>,
    cgroup: KernelCgroup,
    inode: u64,
    /// User pages of the program itself, without what it gets on command.
    own: u64,
    promised: u64,
}

/// Seats for all modes, since a census takes as long for one as for all. None is skipped silently.
struct Fixture {
    seats: Vec<Case>,
    unavailable: Vec<String>,
    /// Keeps the program in memory: a holder that read a page of it again would be charged.
    _files: Resident,
}

impl Fixture {
    /// `None` if the kernel does no accounting of its own here.
    fn open() -> Result<Option<Self>> {
        let _files = Resident::program(&binaries::workload()?)?;
        let mut seats = Vec::new();
        for mode in Mode::value_variants().iter().copied() {
            let Some(cgroup) = KernelCgroup::new()? else {
                skip(&name(), ABSENT);
                return Ok(None);
            };
            let holder = Holder::of(mode).kernel(&cgroup).start();
            let holder = Some(holder.with_context(|| mode.name())?);
            let inode = cgroup.inode()?;
            seats.push(Case { mode, holder, cgroup, inode, own: 0, promised: 0 });
        }
        let mut hall = Self { seats, unavailable: Vec::new(), _files };
        let census = hall.census()?;
        for seat in &mut hall.seats {
            seat.own = census.of(seat.inode).user;
        }
        Ok(Some(hall))
    }

    fn census(&self) -> Result<Census> {
        Census::take(&self.seats.iter().map(|seat| seat.inode).collect::<Vec<_>>())
    }

    /// All holders get their memory; seats whose mode is unavailable here are removed.
    fn get(&mut self) -> Result<()> {
        let mut stay = Vec::new();
        for mut seat in self.seats.drain(..) {
            let Some(holder) = &mut seat.holder else {
                bail!("{} has gone", seat.mode.name());
            };
            match holder.get() {
                Ok(promised) => {
                    seat.promised = promised;
                    stay.push(seat);
                }
                Err(error) if error.is::<Unavailable>() => {
                    self.unavailable.push(format!("{}: {error}", seat.mode.name()));
                }
                Err(error) => return Err(error.context(seat.mode.name())),
            }
        }
        self.seats = stay;
        Ok(())
    }

    fn close(self) {
        if !self.unavailable.is_empty() {
            skip(&name(), &self.unavailable.join("; "));
        }
    }
}

/// How many user pages more than promised there may be while a mode holds its pages.
fn slack(seat: &Case) -> u64 {
    match seat.mode {
        // After a fork, both sides copy what they write of the program's own memory, at most all.
        Mode::ForkWrite => seat.own,
        _ => metadata(seat),
    }
}

/// How many pages may remain: blocks of the disk's file system (bitmaps, inodes, folders) that making files or looking
/// up a program brings into the cache.
fn metadata(seat: &Case) -> u64 {
    let disk = seat.mode.place() == Place::Disk || seat.mode == Mode::ExecStorm;
    if disk { 16 } else { 0 }
}

/// Pages that are charged but no longer mapped, so that the kernel's figures do not count them.
fn unmapped(seat: &Case) -> u64 {
    if seat.mode == Mode::HugePartial { seat.promised / 2 } else { 0 }
}

fn evicted(seat: &Case) -> Result<u64> {
    seat.holder.as_ref().map_or(Ok(0), Holder::evicted)
}

/// The least number of pages: what was promised, without what the host has evicted.
fn least(seat: &Case) -> Result<u64> {
    Ok(seat.promised.saturating_sub(evicted(seat)?))
}

/// Describes what differs from the promise.
fn broken(seat: &Case, before: &Census, held: &Census) -> Result<Option<String>> {
    let (before, held) = (before.of(seat.inode), held.of(seat.inode));
    let (start, now) = match seat.mode.kind() {
        Kind::Kernel => (before.kernel, held.kernel),
        _ => (before.user, held.user),
    };
    let expected = start + least(seat)?..=start + seat.promised + slack(seat);
    let what = seat.mode.name();
    Ok((!expected.contains(&now))
        .then(|| format!("{what}: {expected:?} pages expected, {now} charged")))
}

/// Whether `memory.stat` has caught up with the census: `user` pages of the right kind.
fn agrees(seat: &Case, user: u64) -> Result<bool> {
    let (anonymous, cache) = (seat.cgroup.anonymous_pages()?, seat.cgroup.cache_pages()?);
    let enough = match seat.mode.kind() {
        Kind::Anonymous => anonymous >= seat.promised - unmapped(seat),
        Kind::Cache => cache >= least(seat)?,
        Kind::Kernel => seat.cgroup.kmem_pages()? >= seat.promised,
    };
    let sum = anonymous + cache + unmapped(seat);
    // Evicted pages include those that went after the census.
    Ok(enough && sum <= user && sum + evicted(seat)? >= user)
}

#[test]
#[ignore = "long"]
fn every_mode_gets_what_it_promises_and_gives_it_back() -> Result<()> {
    live(|| {
        let Some(mut hall) = Fixture::open()? else {
            return Ok(());
        };
        let before = hall.census()?;
        hall.get()?;
        // During a census, khugepaged may move pages from frames that are not yet counted to frames that already are.
        let mut wrong = String::new();
        let held = try_poll_until(SOON, "what was promised", || {
            let held = hall.census()?;
            wrong.clear();
            for seat in &hall.seats {
                wrong.extend(broken(seat, &before, &held)?);
            }
            Ok(wrong.is_empty().then_some(held))
        });
        let held = held.with_context(|| wrong)?;
        for seat in &mut hall.seats {
            let what = seat.mode.name();
            let held = held.of(seat.inode);
            try_poll_until(SOON, &format!("the kernel's figures of {what}"), || {
                Ok(agrees(seat, held.user)?.then_some(()))
            })?;
            seat.holder.as_mut().context("a holder")?.give().context(what)?;
        }
        // The host may evict cached metadata of the disk.
        left(&hall, |seat| {
            let before = before.of(seat.inode).user;
            before.saturating_sub(metadata(seat))..=before + metadata(seat)
        })?;
        // Once more, to the end of the process.
        hall.get()?;
        for seat in &mut hall.seats {
            seat.holder.take().context("a holder")?.exit().with_context(|| seat.mode.name())?;
        }
        gone(&hall)?;
        hall.close();
        Ok(())
    })
}

#[test]
fn a_kill_gives_everything_back() -> Result<()> {
    live(|| {
        let Some(mut hall) = Fixture::open()? else {
            return Ok(());
        };
        hall.get()?;
        for seat in &mut hall.seats {
            let mut holder = seat.holder.take().context("a holder")?;
            let status = holder.kill().with_context(|| seat.mode.name())?;
            ensure!(!status.success(), "{}: {status}", seat.mode.name());
        }
        gone(&hall)?;
        hall.close();
        Ok(())
    })
}

/// Waits until no user page is left.
fn gone(hall: &Fixture) -> Result<()> {
    left(hall, |seat| 0..=metadata(seat))
}

/// Waits until each case has as many user pages as `expected` of it. AIO rings are freed after a grace period, and an
/// orphaned child may take a moment to end.
fn left(hall: &Fixture, expected: impl Fn(&Case) -> RangeInclusive<u64>) -> Result<()> {
    let mut wrong = Vec::new();
    try_poll_until(SOON, "pages to come back", || {
        let census = hall.census()?;
        let pages = hall.seats.iter().map(|seat| (seat, census.of(seat.inode).user));
        let others = pages.filter(|(seat, pages)| !expected(seat).contains(pages));
        wrong = others.map(|(seat, pages)| (seat.mode, pages)).collect();
        Ok(wrong.is_empty().then_some(()))
    })
    .with_context(|| format!("left: {wrong:?}"))
}

#[test]
fn tasks_and_holders_are_in_both_hierarchies() -> Result<()> {
    live(|| {
        let Some(kernel) = KernelCgroup::new()? else {
            skip(&name(), ABSENT);
            return Ok(());
        };
        if kernel.is_v2() {
            skip(&name(), "there is one hierarchy for both");
            return Ok(());
        }
        let cgroup = TestCgroup::new()?;
        let inner = kernel.child("inner")?;
        let mut task = Task::start_in_both(&cgroup, &inner, None)?;
        is_in(task.id(), &[cgroup.path(), inner.path()])?;
        let before = inner.usage_pages()?;
        task.touch(1000)?;
        // The parent is charged too, and stocks hold at most 64 pages per CPU.
        for (figure, path) in [(&inner, "itself"), (&kernel, "its parent")] {
            let usage = figure.usage_pages()?;
            ensure!(usage >= before + 1000 - 128, "{path}: {before} pages before, {usage} now");
        }
        let holder =
            Holder::of(Mode::AnonWrite).pages(1).cpu(0).cgroup(&cgroup).kernel(&inner).start()?;
        is_in(holder.id(), &[cgroup.path(), inner.path()])?;
        // It can be removed before its tasks, which move up.
        drop(inner);
        is_in(task.id(), &[cgroup.path(), kernel.path()])?;
        holder.exit()
    })
}

fn is_in(pid: u32, paths: &[&str]) -> Result<()> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let found = |path: &&str| text.lines().any(|line| line.splitn(3, ':').nth(2) == Some(*path));
    ensure!(paths.iter().all(found), "{paths:?} expected, and in {text}");
    Ok(())
}
