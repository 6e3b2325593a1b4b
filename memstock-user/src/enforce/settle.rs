//! What is done about one cgroup that is over its limit, step by step, by a worker of its own.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use memstock_common::{Counter, Event};

use super::guard::Guard;
use super::hold::{Hold, Writes};
use super::job::{Job, Shared, Step, What, be_patient, be_prompt};
use super::reclaim::MEANS;
use super::room::{Excess, LATER, Made, Room, SOON, cache_over_limit, excess, needed_excess};
use super::task::{Task, tasks};
use super::{kill, rehearsal, victim};
use crate::host;
use crate::host::cgroup::{ById, Cgroup, display};
use crate::journal::Record;
use crate::journal::record::{self, Means, named};

/// How long a subtree is held at once: for that of a killed task to come back, or while there is nobody to kill.
const HELD: Duration = Duration::from_secs(1);
/// What the memory of a killed task has beyond that, before another one is killed.
const COMES_BACK: Duration = Duration::from_secs(1);
/// How long tasks that nobody may kill run between two holds.
const LET_GO: Duration = Duration::from_millis(10);
/// How often it is looked whether there is room for them.
const LOOK: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// There is room for what the job was about, or the cgroup is gone.
    Room,
    /// There is none.
    Over,
    /// Somebody died, and gave nothing back: the next one has to charge something first.
    Fruitless,
    /// There is none, and there is nobody that may be killed.
    NoVictim,
    /// An error; what failed may work next time.
    Failed,
    /// It was only looked at; whether somebody would have been killed.
    Observed(bool),
}

/// Has the cgroup of a job get below its limit, or says what would be done for that.
///
/// # Errors
/// The engine cannot be read or driven, or what it says cannot be.
pub(super) fn settle(shared: &Shared, job: &Job, step: &Step, writes: &Writes) -> Result<Outcome> {
    let ById::Found(cgroup) = shared.mount.cgroup_of(job.hit.ancestor_id) else {
        return Ok(Outcome::Room);
    };
    let full = Full { shared, job, step, writes, cgroup };
    if job.policy.observe { full.rehearse() } else { full.settle() }
}

struct Full<'a> {
    shared: &'a Shared,
    job: &'a Job,
    step: &'a Step,
    writes: &'a Writes,
    cgroup: Cgroup,
}

impl<'a> Full<'a> {
    fn rehearse(&self) -> Result<Outcome> {
        let Shared { engine, mount, .. } = self.shared;
        let hit: &Event = &self.job.hit;
        let would = rehearsal::rehearse(engine, mount, &self.cgroup, self.job.index, hit)?;
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
            // Events are merged for a while after one; that would give those let go a start.
            self.shared.engine.control().rearm(self.job.index)?;
        }
        drop(hold);
        Ok(outcome)
    }

    /// Has page cache go that is above the limit, or says that it cannot. Nobody waits for it, and to find it takes a while.
    fn make_cache(&self) -> Result<Outcome> {
        be_patient();
        let made = self.make_room(&MEANS, LATER);
        be_prompt();
        // Who reads on as fast is not stopped: it goes on as well.
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

    /// Has what is needed get to the limit: by what can be taken without a death, or by one.
    fn make_needed(&self, hold: &mut Option<Hold<'a>>) -> Result<Outcome> {
        if !self.job.kills_only {
            // Without swap, no other page that is needed can be taken.
            let means = [Means::MemoryReclaim, Means::Lazyfree, Means::Pageout];
            self.make_room(if host::has_swap()? { &means } else { &means[..2] }, SOON)?;
        }
        self.kill(hold)
    }

    /// Usage above what the host can have is a counter gone wrong, for which nobody dies.
    fn is_possible(&self) -> Result<()> {
        let Shared { engine, cache, .. } = self.shared;
        let usage = self.counter()?.memory.usage;
        let most = cache.host_pages(engine)?;
        let path = display(&self.cgroup.path);
        ensure!(
            usage <= most,
            "{path}: its counter says {usage} pages, and the host has {most}: its limit is not enforced; \
             \"memstock stop\" and \"memstock run\" start anew"
        );
        Ok(())
    }

    fn hold(&self) -> Option<Hold<'a>> {
        let guard: &Arc<Guard> = self.job.guard.as_ref()?;
        Hold::freeze(guard, self.writes, &self.cgroup).unwrap_or_else(|error| {
            self.shared.fail(error.context("a subtree at its limit is not held"));
            None
        })
    }

    fn make_room(&self, means: &[Means], within: Duration) -> Result<Made> {
        self.step.begin();
        let room = Room { within, ..self.room() };
        room.make(&mut |record| self.say(record), means, over_limit)
    }

    fn room(&self) -> Room<'_> {
        let Shared { engine, cache, .. } = self.shared;
        Room { engine, cache, cgroup: &self.cgroup, index: self.job.index, within: SOON }
    }

    /// Kills one task after the other until what is needed is not above the limit, or a death gives nothing back: then it
    /// is not the tasks' own (files in memory), and the next one has to charge something first.
    fn kill(&self, hold: &mut Option<Hold<'a>>) -> Result<Outcome> {
        let (mut killed, mut missed) = (Vec::<Task>::new(), Vec::<Task>::new());
        let mut has_told = self.job.has_told;
        let own = victim::own_cgroup_below(&self.cgroup.path);
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
            // Whoever dies already, by whomever, comes first: he may be enough.
            let dying = all.iter().find(|task| task.is_dying && !was_tried(task)).cloned();
            let is_dying = dying.is_some();
            let limit = self.counter()?.memory_limit;
            let spared = |task: &Task| was_tried(task) || is_ours(task);
            let Some(victim) = dying.or_else(|| victim::choose(all, limit, spared)) else {
                if !std::mem::replace(&mut has_told, true) {
                    self.say(Record::NoVictim { ancestor: named(&self.cgroup) });
                }
                match self.outlast(hold, |task| is_among(&killed, task) || is_ours(task))? {
                    Some(outcome) => return Ok(outcome),
                    None => missed.clear(),
                }
                continue;
            };
            let before = self.counter()?.memory.usage;
            let open = if is_dying { kill::open } else { kill::kill };
            let Some(pidfd) = open(&victim, &self.cgroup)? else {
                // Gone, elsewhere by now, or not to be looked at for a moment.
                missed.push(victim);
                continue;
            };
            if !is_dying {
                self.killed(&victim, is_ours)?;
            }
            killed.push(victim.clone());
            let is_back = kill::gives_back(&pidfd, Instant::now() + HELD) || {
                *hold = None;
                kill::gives_back(&pidfd, Instant::now() + COMES_BACK)
            };
            // Its pages are freed before its end is told, and some of them into stocks.
            self.room().drain(&mut |record| self.say(record))?;
            if !is_back {
                log::warn!("the memory of the killed process {} does not come back", victim.pid);
            } else if !is_dying && self.counter()?.memory.usage >= before {
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

    /// There is nobody to kill: holds the subtree for most of the time, until there is room, or, with no outcome, somebody
    /// to kill.
    fn outlast(
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
            sleep(LET_GO);
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
