//! The workload does exactly what it promises; otherwise no other test would mean anything. Needs no memstock.

use anyhow::{Result, ensure};
use memstock_tests::{Task, TestCgroup, live};

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
