//! `memstock stat --kernel-stock`: what the kernel's own controller does for the same pages, traced by fentry.
//! The guests' kernels have fentry; without it the flag must be refused.

use std::fs::File;

use anyhow::{Result, ensure};
use memstock_tests::live::{live, name};
use memstock_tests::measured::{grew, hog};
use memstock_tests::poll::SOON;
use memstock_tests::process::memstock;
use memstock_tests::skip::skip;
use memstock_tests::{KernelCgroup, PAGE, Resident, TestCgroup, binaries, leftovers, release};

const FLAG: &str = "--kernel-stock";

/// Whether fentry is available. If not, checks that it is refused with one line, and reports the skip.
fn can_see() -> Result<bool> {
    let finished = memstock(["stat", FLAG, "--", "true"])?.finish(SOON)?;
    // A locked-down kernel has the file and refuses to open it.
    let traces = File::open("/sys/kernel/tracing/available_filter_functions").is_ok();
    // arm64 traces functions for longer than it attaches programs to them (`DYNAMIC_FTRACE_WITH_DIRECT_CALLS`).
    let attaches = cfg!(not(target_arch = "aarch64")) || release()? >= (6, 4);
    if traces && attaches {
        ensure!(finished.code() == 0, "{finished:?}");
        return Ok(true);
    }
    ensure!(finished.code() == 121 && finished.stdout.is_empty(), "{finished:?}");
    ensure!(finished.stderr.lines().count() == 1 && finished.stderr.contains(FLAG), "{finished:?}");
    leftovers::none()?;
    skip(&name(), "no fentry: the kernel does not trace functions, or attaches no program to them");
    Ok(false)
}

/// Both charge the same pages, memstock in batches of 32, the kernel in batches of 64 (`MEMCG_CHARGE_BATCH`
/// since Linux 6.0).
#[test]
fn the_kernel_charges_the_same_in_batches_of_its_own() -> Result<()> {
    const MORE: u64 = 16384;
    /// Page tables for them, charged without a fault.
    const TABLES: u64 = MORE / 512;
    /// A program's address is random, and so are some faults at its start: fewer than 20 were seen.
    const START: u64 = 48;
    live(|| {
        if !can_see()? {
            return Ok(());
        }
        let cgroup = TestCgroup::new()?;
        if !KernelCgroup::beside(&cgroup)?.is_some_and(|kernel| kernel.is_v2()) {
            skip(&name(), "the memory controller is not on cgroup v2");
            return Ok(());
        }
        let _files = Resident::program(&binaries::workload()?)?;
        let flags = [FLAG, "--cgroup", cgroup.path()];
        let (few, many) = (hog(1000, &flags)?, hog(1000 + MORE, &flags)?);
        grew(&few, &many, "/kernel/charges", MORE + TABLES, START)?;
        grew(&few, &many, "/kernel/charged", (MORE + TABLES) * PAGE, START * PAGE)?;
        for (pointer, batch) in [("/kernel/shared_operations", 64), ("/engine/charges", 32)] {
            // As in `live::stat`: differences at the start, and what a task that moves to another CPU leaves on the
            // old one.
            let batches = (MORE + TABLES) / batch;
            grew(&few, &many, pointer, batches, START / batch + batches / 50 + 4)?;
        }
        eprintln!("{:#}", many["kernel"]);
        Ok(())
    })
}

/// Without the flag, nothing is attached and nothing reported.
#[test]
fn nothing_is_told_unasked() -> Result<()> {
    live(|| {
        let report = hog(100, &[])?;
        let kernels =
            report["kernel"].as_object().map(|kernel| kernel.values().all(|v| v.is_null()));
        ensure!(kernels == Some(true), "{report:#}");
        Ok(())
    })
}
