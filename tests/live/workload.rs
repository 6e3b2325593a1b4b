//! The workload does exactly what it promises; otherwise no other test would mean anything. Needs no memstock.

use anyhow::{Result, ensure};
use memstock_tests::process::{Finished, Program};
use memstock_tests::{Task, TestCgroup, binaries, live, poll::SOON};
use rustix::process::Signal;
use std::process::Command;

#[test]
fn a_command_costs_no_fault_but_those_asked_for() -> Result<()> {
    live(|| {
        let cgroup = TestCgroup::new()?;
        let mut task = Task::start(&cgroup, Some(0))?;
        let start = task.faults()?;
        let mut asked = 0;
        for nr_pages in [1, 2, 31, 32, 1000, 1, 1] {
            let touched = task.touch(nr_pages)?;
            ensure!(touched == nr_pages, "{nr_pages} fresh pages cost {touched} faults");
            asked += nr_pages;
        }
        for command in ["faults", "drop", "nonsense 1", "faults"] {
            // Refusing an unknown command costs no fault either.
            let _ = task.ask(command);
        }
        task.ask("spin 10")?;
        asked += 10 * 64;
        task.churn()?;
        asked += task.pause()? * 64;
        let counted = task.faults()? - start;
        ensure!(counted == asked, "{asked} faults asked for, {counted} counted by the kernel");
        Ok(())
    })
}

fn workload(args: &[&str]) -> Result<Program> {
    let mut command = Command::new(binaries::workload()?);
    command.args(args);
    Ok(command.into())
}

/// Checks for a line `cpu N: F faults` for each CPU.
fn check_report(finished: &Finished, cpus: &[u32]) -> Result<()> {
    ensure!(finished.code() == 0, "{finished:?}");
    for cpu in cpus {
        let start = format!("cpu {cpu}: ");
        let line = finished.stderr.lines().find_map(|line| line.strip_prefix(&start));
        let faults = line.and_then(|line| line.strip_suffix(" faults"));
        ensure!(faults.is_some_and(|n| n.parse().is_ok_and(|n: u64| n > 0)), "{finished:?}");
    }
    ensure!(finished.stderr.lines().count() == cpus.len(), "{finished:?}");
    Ok(())
}

#[test]
fn it_stops_after_its_time() -> Result<()> {
    live(|| check_report(&workload(&["--cpus", "0,1", "--seconds", "1"])?.finish(SOON)?, &[0, 1]))
}

#[test]
fn it_stops_on_a_signal() -> Result<()> {
    live(|| {
        for signal in [Signal::INT, Signal::TERM] {
            let mut process = workload(&["--cpus", "0", "--pages", "8"])?.start()?;
            // Its child starts after it has installed its handlers: from then on a signal does not kill it.
            let children = format!("/proc/{0}/task/{0}/children", process.id());
            memstock_tests::poll_until(SOON, "the churn on CPU 0", || {
                let child = std::fs::read_to_string(&children).ok()?.trim().parse().ok()?;
                memstock_tests::task::faults_of(child).ok().filter(|faults| *faults > 10_000)
            })?;
            process.signal(signal)?;
            check_report(&process.wait(SOON)?, &[0])?;
        }
        Ok(())
    })
}
