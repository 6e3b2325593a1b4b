//! Makes limits hold: what happens when not even one page fits. The kernel half has charged it by force by
//! then, since a fault cannot be refused; here its subtree is drained and reclaimed, up to five times, and then,
//! if what is *needed* is still above the limit, a task is killed: `mem_cgroup_charge` and
//! `mem_cgroup_out_of_memory` in the patch. Page cache that is above a limit is told of, and kills nobody.
//!
//! Owns the order of things. `hold`, `reclaim`, `victim` and `kill` each own a step, `rehearsal` what is said
//! instead when nothing may be done (`--observe`), `duty` the thread in which it runs; `setting` sets limits.

pub mod duty;
mod hold;
mod kill;
pub mod reclaim;
mod rehearsal;
pub mod room;
pub mod setting;
pub mod task;
pub mod undo;
mod victim;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use memstock_common::{Counter, Event};

use self::hold::Hold;
use self::room::{Excess, Room, cache_over_limit, excess, needed_excess};
use self::task::{Task, tasks};
use self::undo::Undo;
use crate::cgroup::{ById, Cgroup, CgroupMount};
use crate::engine::Engine;
use crate::host;
use crate::journal::Record;
use crate::journal::record::{self, named};

/// Time that the memory of a killed task has to come back before another one is killed.
const COMES_BACK: Duration = Duration::from_secs(2);
/// Time without another try where nothing could be done; doubled with each.
const RESPITE: Duration = Duration::from_millis(100);
/// The longest of them.
const LONGEST_RESPITE: Duration = Duration::from_secs(2);

/// What may be done at a limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// Nothing: only say what would be.
    pub observe: bool,
    /// Kill all tasks of the cgroup that is over its limit, not one.
    pub oom_group: bool,
}

/// Enforces the limits of an engine.
pub struct Enforcer<S> {
    /// The engine.
    pub engine: Engine,
    /// Where its cgroups are.
    pub mount: CgroupMount,
    /// What may be done.
    pub policy: Policy,
    /// What lets go of what is held if we die; none when nothing is ever held.
    pub undo: Option<RefCell<Undo>>,
    /// Takes what was done.
    pub say: S,
    /// Counters of which nothing could be done, until when, and for how long.
    respite: BTreeMap<u32, (Instant, Duration)>,
}

/// A cgroup that is over its limit.
struct Full {
    index: u32,
    cgroup: Cgroup,
    /// When the limit was met, by the clock of the events.
    hit_ns: u64,
}

impl<S: FnMut(Record)> Enforcer<S> {
    /// An enforcer with nothing done yet.
    pub fn new(
        engine: Engine,
        mount: CgroupMount,
        policy: Policy,
        undo: Option<Undo>,
        say: S,
    ) -> Self {
        let undo = undo.map(RefCell::new);
        Self { engine, mount, policy, undo, say, respite: BTreeMap::new() }
    }

    /// Goes on with another policy.
    pub fn obey(&mut self, policy: Policy, undo: Option<Undo>) {
        self.policy = policy;
        self.undo = undo.map(RefCell::new);
        // What could not be done may be by now.
        self.respite.clear();
    }

    /// A limit was met: has the cgroup get below it, or says what would be done for that.
    ///
    /// # Errors
    /// The engine cannot be read or driven. That its cgroup is gone, or below its limit by now, is none.
    pub fn limit_hit(&mut self, hit: &Event) -> Result<()> {
        let Some(index) = self.engine.index_of(hit.ancestor_id)? else { return Ok(()) };
        let ById::Found(cgroup) = self.mount.cgroup_of(hit.ancestor_id) else { return Ok(()) };
        if self.respite.get(&index).is_some_and(|(until, _)| Instant::now() < *until) {
            return Ok(());
        }
        let full = Full { index, cgroup, hit_ns: hit.time_ns };
        if self.policy.observe {
            let would = rehearsal::rehearse(&self.engine, &self.mount, &full.cgroup, index, hit)?;
            // What is but page cache comes at intervals; what would kill must not wait for it.
            if matches!(would, Record::WouldEnforce { victim: Some(_), .. }) {
                self.rest(index, RESPITE);
            }
            (self.say)(would);
            return Ok(());
        }
        if self.excess(index)?.is_none() {
            return Ok(());
        }
        let Self { undo, .. } = self;
        // Taken out for as long as it is borrowed by the hold.
        let undo = undo.take();
        let outcome = self.settle(&full, undo.as_ref());
        self.undo = undo;
        outcome
    }

    /// Has the subtree get below its limit; holds it meanwhile if it needs more than that.
    fn settle(&mut self, full: &Full, undo: Option<&RefCell<Undo>>) -> Result<()> {
        let needs_more = self.needed_excess(full.index)?.is_some();
        let held = match undo.filter(|_| needs_more).map(|undo| Hold::freeze(undo, &full.cgroup)) {
            Some(Ok(hold)) => hold,
            Some(Err(error)) => {
                log::warn!("a subtree at its limit is not held: {error:#}");
                None
            }
            None => None,
        };
        let has_room = self.make_room(full)? || self.kill(full)?;
        let over = self.excess(full.index)?;
        if has_room && let Some((over, _)) = over {
            let counter = self.engine.counter(full.index)?;
            (self.say)(cache_over_limit(&full.cgroup, &counter, over));
        } else {
            // Events are merged for a while after one; that would give those let go a start.
            self.engine.control().rearm(full.index)?;
        }
        drop(held);
        if has_room && over.is_none() {
            self.respite.remove(&full.index);
        } else {
            let last = self.respite.get(&full.index).map_or(RESPITE / 2, |(_, last)| *last);
            self.rest(full.index, (2 * last).min(LONGEST_RESPITE));
        }
        Ok(())
    }

    fn make_room(&mut self, full: &Full) -> Result<bool> {
        let Self { engine, say, .. } = self;
        Room { engine, cgroup: &full.cgroup, index: full.index }.make(say, over_limit)
    }

    fn drain(&mut self, full: &Full) -> Result<u64> {
        let Self { engine, say, .. } = self;
        Room { engine, cgroup: &full.cgroup, index: full.index }.drain(say)
    }

    fn rest(&mut self, index: u32, time: Duration) {
        self.respite.insert(index, (Instant::now() + time, time));
    }

    /// Kills one task after the other until what is needed is not above the limit; says whether it got there.
    fn kill(&mut self, full: &Full) -> Result<bool> {
        let mut tried = Vec::<Task>::new();
        let own = victim::own_cgroup_below(&full.cgroup.path);
        let is_ours = |task: &Task| own.as_ref().is_some_and(|own| task.is_in(own));
        while self.needed_excess(full.index)?.is_some() {
            let was_tried = |task: &Task| {
                tried.iter().any(|dead| (dead.pid, dead.started) == (task.pid, task.started))
            };
            let spared = |task: &Task| was_tried(task) || is_ours(task);
            let limit = self.engine.counter(full.index)?.memory_limit;
            let all = tasks(&full.cgroup.dir);
            let Some(victim) = victim::choose(all, limit, spared) else {
                (self.say)(Record::NoVictim { ancestor: named(&full.cgroup) });
                return Ok(false);
            };
            let is_group = self.policy.oom_group;
            // One that is gone, or elsewhere by now, is not chosen again either.
            tried.push(victim.clone());
            let Some(pidfd) = kill::kill(&victim, &full.cgroup)? else { continue };
            if is_group {
                kill::kill_group(&full.cgroup, is_ours)?;
            }
            (self.say)(Record::OomKill {
                ancestor: named(&full.cgroup),
                victim: record::Victim::from(&victim),
                group: is_group,
                after_ns: host::now_ns().saturating_sub(full.hit_ns),
            });
            let deadline = Instant::now() + COMES_BACK;
            if !kill::has_ended(&pidfd, deadline) {
                log::warn!("a killed task has not ended within {COMES_BACK:?}");
            }
            // Its pages are freed before its end is told, and some of them into stocks.
            self.drain(full)?;
        }
        Ok(true)
    }

    fn excess(&self, index: u32) -> Result<Excess> {
        Ok(over_limit(&self.engine.counter(index)?))
    }

    fn needed_excess(&self, index: u32) -> Result<Excess> {
        let counter = self.engine.counter(index)?;
        Ok(needed_excess(&counter, counter.memory_limit, counter.memsw_limit))
    }
}

fn over_limit(counter: &Counter<u64>) -> Excess {
    excess(counter, counter.memory_limit, counter.memsw_limit)
}
