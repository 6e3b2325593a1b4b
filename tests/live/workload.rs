//! The workload does exactly what it promises; otherwise no other test would mean anything. Needs no memstock.

use std::fs;

use anyhow::{Result, ensure};
use memstock_tests::kernel_cgroup::ABSENT;
use memstock_tests::live::{live, name};
use memstock_tests::skip::skip;
use memstock_tests::workload::hold::Mode;
use memstock_tests::{Holder, KernelCgroup, Task, TestCgroup};

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
