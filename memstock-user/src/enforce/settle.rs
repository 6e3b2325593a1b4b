//! Settles one cgroup above its limit, step by step.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memstock_common::{Counter, Event};

use super::guard::Guard;
use super::hold::{Hold, Writes};
use super::job::{Job, Shared, Step, What, set_normal_priority, set_realtime};
use super::reclaim::METHODS;
use super::room::{Excess, LATER, Made, Room, SOON, cache_over_limit, excess, needed_excess};
use super::task::{Task, tasks};
use super::{kill, observe, swapped, victim};
use crate::host;
use crate::host::cgroup::{ById, Cgroup, display};
use crate::journal::Record;
use crate::journal::record::{self, ReclaimMethod, named};

/// The longest hold while waiting for a killed task's memory, or while there is nobody to kill.
const HELD: Duration = Duration::from_secs(1);
/// How much longer a killed task's memory may take before another task is killed.
const COMES_BACK: Duration = Duration::from_secs(1);
/// How long tasks that may not be killed run between two holds.
const LET_GO: Duration = Duration::from_millis(10);
/// The same where the kernel half does not throttle them, which without the throttle take some hundred pages in a ms.
const LET_GO_UNTHROTTLED: Duration = Duration::from_millis(1);
/// Interval between two checks for room during such a hold.
const LOOK: Duration = Duration::from_millis(20);

/// The result of a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// There is room now, or the cgroup is gone.
    Room,
    /// There is no room.
    Over,
    /// A task was killed and freed nothing: the next kill waits for the next charge.
    Fruitless,
    /// There is no room, and nobody may be killed.
    NoVictim,
    /// An error; the next attempt may succeed.
    Failed,
    /// Observed only; whether somebody would have been killed.
    Observed(bool),
}

/// Brings the cgroup of a job below its limit, or reports what would be done.
///
/// # Errors
/// The engine cannot be read or driven, or its figures are impossible.
pub(super) fn settle(
    shared: &Shared,
    job: &Job,
    step: &Step,
    writes: Option<&Writes>,
) -> Result<Outcome> {
    let ById::Found(cgroup) = shared.mount.cgroup_of(job.hit.ancestor_id) else {
        return Ok(Outcome::Room);
    };
    let full = Full { shared, job, step, writes, cgroup };
    if job.policy.observe { full.observe() } else { full.settle() }
}

struct Full<'a> {
    shared: &'a Shared,
    job: &'a Job,
    step: &'a Step,
    /// None if tasks cannot be held.
    writes: Option<&'a Writes>,
    cgroup: Cgroup,
}

impl<'a> Full<'a> {
    fn observe(&self) -> Result<Outcome> {
        let Shared { engine, mount, .. } = self.shared;
        let hit: &Event = &self.job.hit;
        let would = observe::would_enforce(engine, mount, &self.cgroup, self.job.index, hit)?;
        let kills = matches!(would, Record::WouldEnforce { victim: Some(_), .. });
        self.say(would);
        Ok(Outcome::Observed(kills))
    }

    fn settle(&self) -> Result<Outcome> {
        if self.excess()?.is_none() {
            return Ok(Outcome::Room);
        }
        self.is_possible()?;
        let mut hold = None;
        let outcome = match self.job.what {
            What::Needed => {
                hold = self.hold();
                self.make_needed(&mut hold)?
            }
            What::Cache => self.make_cache()?,
        };
        if matches!(outcome, Outcome::Room | Outcome::Fruitless) {
            // After an event, further ones are merged for a while, which would give released tasks a head start.
            self.shared.engine.control().rearm(self.job.index)?;
        }
        drop(hold);
        Ok(outcome)
    }

    /// Reclaims page cache above the limit, or reports that it cannot. Runs without real-time priority: nobody waits
    /// for it, and finding page cache takes a while.
    fn make_cache(&self) -> Result<Outcome> {
        set_normal_priority();
        let made = self.make_room(&METHODS, LATER);
        set_realtime();
        // A task that reads as fast as we reclaim is not stopped: the job just starts again.
        if made? != Made::Nothing {
            return Ok(Outcome::Room);
        }
        let counter = self.counter()?;
        if needs_more(&counter) {
            return Ok(Outcome::Room);
        }
        if let Some((over, _)) = over_limit(&counter) {
            self.say(cache_over_limit(&self.cgroup, &counter, over));
        }
        Ok(Outcome::Over)
    }

    /// Brings what is needed down to the limit: by reclaim or, failing that, by killing.
    fn make_needed(&self, hold: &mut Option<Hold<'a>>) -> Result<Outcome> {
        if self.job.kills_only {
            self.room().drain(&mut |record| self.say(record))?;
        } else {
            // Without swap, only the first two reclaim needed pages.
            let means =
                [ReclaimMethod::MemoryReclaim, ReclaimMethod::Lazyfree, ReclaimMethod::Pageout];
            self.make_room(if host::has_swap()? { &means } else { &means[..2] }, SOON)?;
        }
        self.kill(hold)
    }

    /// Fails if the usage is above the host's memory: such a counter is corrupt, and nobody is killed for it.
    fn is_possible(&self) -> Result<()> {
        let Shared { engine, cache, .. } = self.shared;
        let usage = self.counter()?.memory.usage;
        let most = cache.host_pages(engine)?;
        let path = display(&self.cgroup.path);
        ensure!(
            usage <= most,
            "{path}: its counter says {usage} pages, but the host has only {most}: its limit is not enforced; \
             \"memstock stop\" and \"memstock run\" start anew"
        );
        Ok(())
    }

    fn hold(&self) -> Option<Hold<'a>> {
        let guard: &Arc<Guard> = self.job.guard.as_ref()?;
        Hold::freeze(guard, self.writes?, &self.cgroup).unwrap_or_else(|error| {
            self.shared.fail(error.context("cannot hold the tasks of a full cgroup"));
            None
        })
    }

    fn make_room(&self, means: &[ReclaimMethod], within: Duration) -> Result<Made> {
        self.step.begin();
        let room = Room { within, ..self.room() };
        room.make(&mut |record| self.say(record), means, over_limit)
    }

    fn room(&self) -> Room<'_> {
        let Shared { engine, cache, .. } = self.shared;
        Room { engine, cache, cgroup: &self.cgroup, index: self.job.index, within: SOON }
    }

    /// Kills one task after another until what is needed fits, or until a kill frees nothing. Then the memory is not
    /// the tasks' own (such as files in tmpfs), and the next kill waits for the next charge.
    fn kill(&self, hold: &mut Option<Hold<'a>>) -> Result<Outcome> {
        let (mut killed, mut missed) = (Vec::<Task>::new(), Vec::<Task>::new());
        let mut reported_no_victim = self.job.reported_no_victim;
        let own = victim::own_cgroup_below(&self.cgroup.path)?;
        let is_ours = |task: &Task| own.as_ref().is_some_and(|own| task.is_in(own));
        while self.needs_more()? {
            if self.job.is_over() {
                return Ok(Outcome::Over);
            }
            self.step.begin();
            let is_among = |tasks: &[Task], task: &Task| {
                tasks.iter().any(|it| (it.pid, it.started) == (task.pid, task.started))
            };
            let was_tried = |task: &Task| is_among(&killed, task) || is_among(&missed, task);
            let all = tasks(&self.cgroup.dir);
            // A task that is already dying, whoever killed it, comes first: its memory may be enough.
            let dying = all.iter().find(|task| task.is_dying && !was_tried(task)).cloned();
            let is_dying = dying.is_some();
            let Counter { memory_limit, memsw_limit, .. } = self.counter()?;
            let limit = memory_limit.min(memsw_limit);
            let spared = |task: &Task| was_tried(task) || is_ours(task);
            let Some(victim) = dying.or_else(|| victim::choose(all, limit, spared)) else {
                if !std::mem::replace(&mut reported_no_victim, true) {
                    self.say(Record::NoVictim { ancestor: named(&self.cgroup) });
                }
                match self.wait_for_victim(hold, |task| is_among(&killed, task) || is_ours(task))? {
                    Some(outcome) => return Ok(outcome),
                    None => missed.clear(),
                }
                continue;
            };
            let before = self.counter()?;
            let open = if is_dying { kill::open } else { kill::kill };
            let Some(pidfd) = open(&victim, &self.cgroup)? else {
                // It is gone, has left the cgroup, or cannot be examined right now.
                missed.push(victim);
                continue;
            };
            if !is_dying {
                self.killed(&victim, is_ours)?;
            }
            killed.push(victim.clone());
            let is_back = kill::gave_back_memory(&pidfd, Instant::now() + HELD) || {
                *hold = None;
                kill::gave_back_memory(&pidfd, Instant::now() + COMES_BACK)
            };
            // Some of the pages freed at its exit are now in stocks.
            self.room().drain(&mut |record| self.say(record))?;
            if before.memsw.usage > before.memory.usage {
                swapped::renew(&self.shared.engine, &self.shared.mount, &self.cgroup)?;
            }
            let now = self.counter()?;
            let is_less =
                now.memory.usage < before.memory.usage || now.memsw.usage < before.memsw.usage;
            if !is_back {
                log::warn!("the memory of the killed process {} is not freed", victim.pid);
            } else if !is_dying && !is_less {
                return Ok(Outcome::Fruitless);
            }
        }
        Ok(Outcome::Room)
    }

    fn killed(&self, victim: &Task, is_ours: impl Fn(&Task) -> bool) -> Result<()> {
        let group = self.job.policy.oom_group;
        if group {
            kill::kill_group(&self.cgroup, is_ours)?;
        }
        self.say(Record::OomKill {
            ancestor: named(&self.cgroup),
            victim: record::Victim::from(victim),
            group,
            after_ns: host::now_ns().saturating_sub(self.job.hit.time_ns),
        });
        Ok(())
    }

    /// Waits while there is nobody to kill, holding the subtree most of the time. Returns an outcome when there is room
    /// or the wait must end, `None` when there is somebody to kill.
    fn wait_for_victim(
        &self,
        hold: &mut Option<Hold<'a>>,
        spared: impl Fn(&Task) -> bool,
    ) -> Result<Option<Outcome>> {
        while hold.is_some() && !self.job.is_over() {
            let until = Instant::now() + HELD;
            while Instant::now() < until && !self.job.is_over() {
                self.step.begin();
                if !self.needs_more()? {
                    return Ok(Some(Outcome::Room));
                }
                sleep(LOOK);
            }
            *hold = None;
            // The throttle is part of the fault program.
            let throttles = self.shared.engine.sees_faults();
            sleep(if throttles { LET_GO } else { LET_GO_UNTHROTTLED });
            self.room().drain(&mut |record| self.say(record))?;
            if victim::choose(tasks(&self.cgroup.dir), 0, &spared).is_some() {
                return Ok(None);
            }
            *hold = self.hold();
        }
        Ok(Some(Outcome::NoVictim))
    }

    fn needs_more(&self) -> Result<bool> {
        Ok(needs_more(&self.counter()?))
    }

    fn excess(&self) -> Result<Excess> {
        Ok(over_limit(&self.counter()?))
    }

    fn counter(&self) -> Result<Counter<u64>> {
        let counter = self.shared.engine.counter(self.job.index)?;
        let id = self.job.hit.ancestor_id;
        Some(counter).filter(|counter| counter.id == id).context("the cgroup is gone")
    }

    fn say(&self, record: Record) {
        self.shared.say(record);
    }
}

/// Whether more is needed than a limit allows.
pub(super) fn needs_more(counter: &Counter<u64>) -> bool {
    needed_excess(counter, counter.memory_limit, counter.memsw_limit).is_some()
}

pub(super) fn over_limit(counter: &Counter<u64>) -> Excess {
    excess(counter, counter.memory_limit, counter.memsw_limit)
}
