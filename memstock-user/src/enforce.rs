//! Makes limits hold: what happens when not even one page fits. The kernel half has charged it by force by
//! then, since a fault cannot be refused; here its subtree is drained and reclaimed, up to five times, and then,
//! if what is *needed* is still above the limit, a task is killed: `mem_cgroup_charge` and
//! `mem_cgroup_out_of_memory` in the patch. Page cache that is above a limit is told of, and kills nobody.
//!
//! `enforcer` is the thread that reads the events; it waits for nothing else. `dispatch` gives each cgroup that is full a
//! `worker` with a `job`, which `settle`s it: `hold`, `room`, `reclaim`, `victim` and `kill` each own a step, `rehearsal` what is said
//! instead when nothing may be done (`--observe`), `guard` that nobody stays held. `setting` sets limits, which
//! belong to `names`; `drains` gives back what is stocked before any of that.

pub mod drains;
pub(crate) mod notes;

mod dispatch;
pub mod enforcer;
mod freeze;
pub mod guard;
pub mod hold;
pub mod job;
mod kill;
pub mod reclaim;
mod rehearsal;
pub mod room;
pub mod setting;
mod settle;
pub mod task;
pub mod victim;
mod worker;

/// What may be done at a limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// Nothing: only say what would be.
    pub observe: bool,
    /// Kill all tasks of the cgroup that is over its limit, not one.
    pub oom_group: bool,
}
