//! Huge pages that khugepaged or another process (`MADV_COLLAPSE`) collapses in a task's memory are charged to the
//! task's cgroup, as by the kernel.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use memstock_tests::audit::beside;
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, try_poll_until};
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Engine, Holder, KernelCgroup, Migrations, PAGE, TestCgroup};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Small pages in a huge page.
const HUGE: u64 = 512;
const PAGES: u64 = 4 * HUGE;
const KHUGEPAGED: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged";

/// Makes the kernel collapse a task's memory. Returns the error if the kernel cannot do that at all. Tries several
/// times, since memory may be short or fragmented.
fn collapse(pid: u32) -> Result<Option<io::Error>> {
    try_poll_until(SOON, "the kernel to put all of it together", || match advise(pid)? {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Some(Some(error))),
        _ => Ok((huge_pages(pid)? == PAGES).then_some(None)),
    })
}

/// Tries once. This process does the work, and is in no tracked cgroup.
fn advise(pid: u32) -> Result<io::Result<()>> {
    let region = largest(pid)?;
    let pid = Pid::from_raw(pid.cast_signed()).context("a process id")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open")?;
    // SAFETY: the kernel only reads `region`, whose addresses are the other process's; the advice changes no contents.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            pidfd.as_raw_fd(),
            &raw const region,
            1,
            libc::MADV_COLLAPSE,
            0,
        )
    };
    Ok(if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) })
}

/// A task's mapping with the largest resident part.
fn largest(pid: u32) -> Result<libc::iovec> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).context("smaps")?;
    let (mut largest, mut last) = (None, None);
    for line in text.lines() {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(resident) = first.eq("Rss:").then(|| kib(rest)).flatten() {
            largest = largest.max(Some((resident, last)));
        } else if let Some((start, end)) = first.split_once('-') {
            let address = |text| usize::from_str_radix(text, 16).context("smaps");
            last = Some((address(start)?, address(end)?));
        }
    }
    let (start, end) = largest.and_then(|(_, at)| at).context("a task without memory")?;
    Ok(libc::iovec { iov_base: start as *mut _, iov_len: end - start })
}

/// Parses the value of a line of smaps, in KiB.
fn kib(text: &str) -> Option<u64> {
    text.trim().strip_suffix(" kB")?.parse().ok()
}

/// Pages of a task that are mapped by huge pages.
fn huge_pages(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("smaps_rollup")?;
    let of = |key| text.lines().find_map(|line| line.strip_prefix(key)).and_then(kib);
    let huge = ["AnonHugePages:", "ShmemPmdMapped:"].map(|key| of(key).unwrap_or(0));
    Ok(huge.iter().sum::<u64>() * 1024 / PAGE)
}

/// A task with memory in small pages, charged by memstock and by the kernel.
struct Pieces {
    // Dropped in this order: cgroups must be empty.
    engine: Engine,
    holder: Holder,
    low: TestCgroup,
    top: TestCgroup,
    kernel: Option<KernelCgroup>,
    used: u64,
    /// To make room for a huge page, the kernel may also move these pages.
    moved: Migrations,
}

impl Pieces {
    fn get(mode: Mode) -> Result<Self> {
        let top = TestCgroup::new()?;
        let low = top.child("low")?;
        let kernel = KernelCgroup::beside(&top)?;
        let inner = kernel.as_ref().map(|kernel| kernel.child("low")).transpose()?;
        let engine = Engine::start(["--cgroup", top.path()])?;
        let moved = Migrations::from_now(&engine)?;
        let mut builder = Holder::of(mode).pages(PAGES as u32).cgroup(&low);
        if let Some(inner) = &inner {
            builder = builder.kernel(inner);
        }
        let mut holder = builder.start()?;
        holder.get()?;
        let used = engine.used_at_rest(&low)?;
        ensure!(used + moved.unseen()? >= PAGES, "{used} pages");
        Ok(Self { engine, holder, low, top, kernel, used, moved })
    }

    /// Checks that everything is charged as before, page by page.
    fn check(mut self) -> Result<()> {
        let (engine, pid) = (&self.engine, self.holder.id());
        ensure!(huge_pages(pid)? == PAGES, "{} huge pages", huge_pages(pid)?);
        let used = engine.used_at_rest(&self.low)?;
        // In shared memory, the page table of each huge page is freed.
        let tables = PAGES / HUGE;
        let moved = self.moved.unseen()?;
        let least = self.used.saturating_sub(tables + moved);
        ensure!((least..=self.used).contains(&used), "{used} pages, {} before", self.used);
        if let Some(kernel) = &self.kernel {
            let audit = engine.audit_at_rest(&beside(&self.top, kernel))?;
            let (counts, moved) = (audit.agreement()?.counts, self.moved.unseen()?);
            ensure!(counts.different() == counts.only_kernels, "{audit}");
            ensure!(counts.only_kernels <= moved, "{audit}, {moved} pages were moved");
            ensure!(counts.both + moved >= PAGES, "{audit}");
        }
        self.holder.give()?;
        let left = self.engine.used_at_rest(&self.low)?;
        ensure!(left <= self.used - PAGES, "{left} pages left of {}", self.used);
        self.holder.exit()?;
        self.engine.stop().map(drop)
    }
}

#[test]
fn a_collapse_for_another_task_is_charged_to_it() -> Result<()> {
    live(|| {
        let pieces = Pieces::get(Mode::Pieces)?;
        ensure!(huge_pages(pieces.holder.id())? == 0, "there are huge pages already");
        if let Some(error) = collapse(pieces.holder.id())? {
            skip(&name(), &format!("no MADV_COLLAPSE (Linux 6.1): {error}"));
            return Ok(());
        }
        pieces.check()
    })
}

#[test]
fn a_collapse_of_shared_memory_is_charged_to_whom_it_was_for() -> Result<()> {
    live(|| {
        if !memstock::host::pages::names_tracepoint("mm_khugepaged_collapse_file")? {
            skip(&name(), "no tracepoint mm_khugepaged_collapse_file");
            return Ok(());
        }
        let pieces = Pieces::get(Mode::PiecesShared)?;
        if let Some(error) = collapse(pieces.holder.id())? {
            skip(&name(), &format!("shared memory cannot be collapsed here: {error}"));
            return Ok(());
        }
        pieces.check()
    })
}

#[test]
fn a_collapse_of_memory_that_nobody_is_charged_for_is_not_charged() -> Result<()> {
    live(|| {
        let (tracked, other) = (TestCgroup::new()?, TestCgroup::new()?);
        let engine = Engine::start(["--cgroup", tracked.path()])?;
        let mut holder = Holder::of(Mode::Pieces).pages(PAGES as u32).cgroup(&other).start()?;
        holder.get()?;
        if let Some(error) = collapse(holder.id())? {
            skip(&name(), &format!("no MADV_COLLAPSE (Linux 6.1): {error}"));
            return Ok(());
        }
        let used = engine.used_at_rest(&tracked)?;
        ensure!(used == 0, "{used} pages");
        holder.exit()?;
        engine.stop().map(drop)
    })
}

/// A changed setting of khugepaged. Restored on `Drop`.
struct Setting {
    file: PathBuf,
    before: String,
}

impl Setting {
    fn set(name: &str, value: &str) -> Result<Self> {
        let file = Path::new(KHUGEPAGED).join(name);
        let before = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        fs::write(&file, value).with_context(|| file.display().to_string())?;
        Ok(Self { file, before })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.file, self.before.trim()) {
            eprintln!("{}: {error}", self.file.display());
        }
    }
}

#[test]
fn khugepaged_charges_whom_the_memory_belongs_to() -> Result<()> {
    live(|| {
        let enabled = Path::new(KHUGEPAGED).with_file_name("enabled");
        if fs::read_to_string(enabled).is_ok_and(|text| text.contains("[never]")) {
            skip(&name(), "huge pages are off: transparent_hugepage/enabled is never");
            return Ok(());
        }
        let pieces = Pieces::get(Mode::PiecesWanted)?;
        // By default it scans every ten seconds, and waits a minute after a failed allocation.
        let _soon = Setting::set("scan_sleep_millisecs", "10")?;
        let _again = Setting::set("alloc_sleep_millisecs", "10")?;
        // It also scans other processes' memory, such as all the memory of a virtual machine.
        try_poll_until(6 * SOON, "khugepaged", || {
            Ok((huge_pages(pieces.holder.id())? == PAGES).then_some(()))
        })?;
        pieces.check()
    })
}
