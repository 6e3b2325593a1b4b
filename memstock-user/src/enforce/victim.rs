//! Chooses whom to kill when nothing else helped: the kernel's choice (`oom_badness` in mm/oom_kill.c) among the tasks
//! of one subtree. Decides only; `kill` acts.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::task::{NEVER, Task};
use crate::host::process::own_cgroup;

/// Our own cgroup, if it is in the subtree of `path`. Nobody in it is killed: this spares the guard and the shell that
/// started us.
///
/// # Errors
/// `/proc` cannot be read; then nobody may be killed.
pub fn own_cgroup_below(path: &Path) -> Result<Option<PathBuf>> {
    let own = own_cgroup().context("cannot find our own cgroup")?;
    Ok(Some(own).filter(|own| own.starts_with(path)))
}

/// Whether no limit may kill it: init, and tasks with `OOM_SCORE_ADJ_MIN` (`oom_unkillable_task` and `oom_badness` in
/// the kernel).
pub fn is_never_killed(task: &Task) -> bool {
    task.pid == 1 || task.adj <= NEVER
}

/// The pages that killing a task would free, plus its adjustment; `None` for one that is never killed.
///
/// `total` is the limit that was hit, as for a memory cgroup in the kernel: `oom_score_adj` is in thousandths of it.
pub fn badness(task: &Task, total: u64) -> Option<i64> {
    if is_never_killed(task) {
        return None;
    }
    let size = task.rss.saturating_add(task.swap).saturating_add(task.page_tables);
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let thousandth = i64::try_from(total / 1000).unwrap_or(i64::MAX);
    Some(size.saturating_add(task.adj.saturating_mul(thousandth)))
}

/// The task with the highest badness that is not `is_spared`.
pub fn choose(tasks: Vec<Task>, total: u64, is_spared: impl Fn(&Task) -> bool) -> Option<Task> {
    let candidates = tasks.into_iter().filter(|task| !is_spared(task));
    let judged = candidates.filter_map(|task| {
        let badness = badness(&task, total)?;
        Some((badness, task))
    });
    // The youngest of equals: it has done the least work.
    judged.max_by_key(|(badness, task)| (*badness, task.started)).map(|(_, task)| task)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: i32, rss: u64, swap: u64, adj: i64) -> Task {
        let (started, comm) = (pid.unsigned_abs().into(), String::new());
        Task { pid, started, comm, rss, swap, page_tables: 0, adj, is_dying: false }
    }

    fn chosen(tasks: &[Task]) -> Option<i32> {
        choose(tasks.to_vec(), 100_000, |_| false).map(|task| task.pid)
    }

    #[test]
    fn the_largest_is_chosen() {
        assert_eq!(chosen(&[task(2, 10, 0, 0), task(3, 30, 0, 0), task(4, 20, 0, 0)]), Some(3));
        assert_eq!(chosen(&[task(2, 10, 25, 0), task(3, 30, 0, 0)]), Some(2), "swap counts");
        assert_eq!(chosen(&[task(2, 10, 0, 0), task(3, 10, 0, 0)]), Some(3), "the youngest");
        let tables = Task { page_tables: 25, ..task(2, 10, 0, 0) };
        assert_eq!(chosen(&[tables, task(3, 30, 0, 0)]), Some(2), "page tables count");
    }

    #[test]
    fn the_adjustment_is_in_thousandths_of_the_limit() {
        // 100 pages for each point.
        assert_eq!(badness(&task(2, 10, 0, 5), 100_000), Some(510));
        assert_eq!(badness(&task(2, 10, 0, -5), 100_000), Some(-490));
        assert_eq!(chosen(&[task(2, 10, 0, 5), task(3, 300, 0, 0)]), Some(2));
        assert_eq!(badness(&task(2, 10, 0, 1000), u64::MAX).unwrap(), i64::MAX);
    }

    #[test]
    fn some_are_never_killed() {
        assert_eq!(chosen(&[task(2, 1 << 40, 0, NEVER)]), None);
        assert_eq!(chosen(&[task(1, 30, 0, 0)]), None, "init");
        let spared = |task: &Task| task.pid == 3;
        let left = choose(vec![task(2, 1, 0, 0), task(3, 30, 0, 0)], 1000, spared);
        assert_eq!(left.unwrap().pid, 2);
        assert_eq!(chosen(&[task(2, 0, 1, -999)]), Some(2), "-999 is not never");
    }
}
