//! User pages are charged to the owner of the memory, even if another process touches it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memstock_tests::audit::beside;
use memstock_tests::dialogue::WorkloadProcess;
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live::{live, name};
use memstock_tests::poll::{SOON, poll_until};
use memstock_tests::skip::skip;
use memstock_tests::task::enter_dir;
use memstock_tests::{Engine, KernelCgroup, TestCgroup, binaries, lru};

const PAGES: u64 = 2000;
/// Kernel pages, which are charged to the running task: page tables for the first touch of an area, and what a pipe
/// holds until it is read. Eight tables map 2,000 pages at any address.
const OWN: u64 = 16;

/// Starts the owner of the memory in the cgroups `a`, and the other process in `b`.
fn start(a: &[&Path], b: &[&Path]) -> Result<WorkloadProcess> {
    let mut command = Command::new(binaries::workload()?);
    command.args(["share", "--pages", &PAGES.to_string()]);
    a.iter().try_for_each(|dir| enter_dir(&mut command, dir))?;
    let mut owner = WorkloadProcess::start(command)?;
    let other = owner.hear(SOON)?;
    for dir in b {
        fs::write(dir.join("cgroup.procs"), &other).context("moving the other")?;
    }
    Ok(owner)
}

/// The owner of the memory is in `a`; the process that touches it is in `b`.
#[test]
fn memory_is_charged_to_who_owns_it() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let (a, b) = (top.child("a")?, top.child("b")?);
        let engine = Engine::start(["--cgroup", top.path()])?;
        let mut owner = start(&[a.dir()], &[b.dir()])?;
        let used = |cgroup: &TestCgroup| {
            Ok::<_, anyhow::Error>(engine.show()?.cgroup(cgroup.path())?.used_pages())
        };
        let before = used(&a)?;
        ensure!(owner.ask("touch", SOON)? == "ok", "it cannot touch");
        let [got, others] = [used(&a)? - before, used(&b)?];
        ensure!(got.abs_diff(PAGES) <= OWN, "{got} pages to the owner of {PAGES}");
        ensure!(others <= OWN, "{others} pages to who touched them");
        ensure!(owner.ask("end", SOON)? == "ok", "it does not end");
        ensure!(used(&a)? + OWN >= before + PAGES, "they are still there, and still a's");
        drop(owner);
        for cgroup in [&a, &b] {
            poll_until(SOON, "all to be given back", || {
                used(cgroup).ok().filter(|&used| used == 0)
            })?;
        }
        engine.audit_at_rest::<&str>(&[])?;
        engine.stop().map(drop)
    })
}

/// The same, page by page with the kernel's own accounting.
#[test]
fn it_is_as_the_kernel_charges_it() -> Result<()> {
    live(|| {
        let top = TestCgroup::new()?;
        let Some(kernel) = KernelCgroup::beside(&top)? else {
            skip(&name(), ABSENT);
            return Ok(());
        };
        let ([a, b], [kernel_a, kernel_b]) =
            ([top.child("a")?, top.child("b")?], [kernel.child("a")?, kernel.child("b")?]);
        let engine = Engine::start(["--cgroup", top.path()])?;
        let mut owner = start(&[kernel_a.dir(), a.dir()], &[kernel_b.dir(), b.dir()])?;
        ensure!(owner.ask("touch", SOON)? == "ok", "it cannot touch");
        lru::drain()?;
        let audit = engine.audit_at_rest(&beside(&top, &kernel))?;
        eprintln!("{audit}");
        ensure!(audit.agreement()?.counts.different() == 0, "{audit}");
        drop(owner);
        engine.stop().map(drop)
    })
}
