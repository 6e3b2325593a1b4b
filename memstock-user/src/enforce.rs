//! Enforces limits: what happens when not even one page fits. The kernel half has charged the page by force by then,
//! since a fault cannot be refused. Here the subtree is drained and reclaimed, up to five times; if what is *needed* is
//! still above the limit, a task is killed: `mem_cgroup_charge` and `mem_cgroup_out_of_memory` in the patch. Page cache
//! above a limit is reported, and kills nobody.
//!
//! `enforcer` is the thread that reads the events; it waits for nothing else. `dispatch` gives each full cgroup a `worker` with a
//! `job`, which `settle`s it: `hold`, `room`, `reclaim`, `victim` and `kill` each own a step. `observe` reports
//! instead of acting (`--observe`); `guard` makes sure that nobody stays held. `setting` sets limits, which `notes`
//! keeps by path; `drains` gives back stocked pages before any of that.

pub mod drains;
pub(crate) mod notes;

mod dispatch;
pub mod enforcer;
mod freeze;
pub mod guard;
pub mod hold;
pub mod job;
mod kill;
mod observe;
pub mod reclaim;
pub mod room;
pub mod setting;
mod settle;
pub mod swapped;
pub mod task;
pub mod victim;
mod worker;

/// What enforcement may do at a limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// Only report what would be done.
    pub observe: bool,
    /// Kill all tasks of the cgroup that is over its limit, not just one.
    pub oom_group: bool,
}
