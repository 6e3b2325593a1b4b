//! What `memstock run` does at SIGHUP: reads its configuration again and applies what is different. Owns the
//! order of that and what is told of it; `diff` finds the differences.
//!
//! A file with a mistake changes nothing. Of a sound one each change is tried by itself: one that is refused
//! (a limit below the usage) is told of, and tried again at the next SIGHUP. Nothing here ends the daemon.

mod diff;
mod tell;

use anyhow::Result;
use memstock_common::NO_LIMIT;

use self::diff::{Change, diff};
use self::tell::Teller;
use super::start::adopt_noted;
use super::targets::{Target, Targets, register};
use super::watch::Watch;
use crate::cgroup::{CgroupMount, display};
use crate::cli::Run;
use crate::config::{self, Settings};
use crate::drains::Drains;
use crate::enforce::Policy;
use crate::enforce::room::Room;
use crate::enforce::setting::{self, Limits};
use crate::engine::Engine;
use crate::exit::{self, Failure, Faults};
use crate::journal::Record;
use crate::journal::record::Outcome;
use crate::kernel_cgroup::Tracked;

/// Said of a cgroup that the file does not name any more.
const STAYS: &str = "it stays tracked until the engine ends";

/// What a run was told, to be compared with what its file says next time.
pub struct Reload<'a> {
    /// The command line without the file.
    flags: &'a Run,
    /// Of the start.
    targets: &'a Targets,
    now: Told,
}

struct Told {
    settings: Settings,
    targets: Vec<Target>,
}

impl<'a> Reload<'a> {
    /// For a run with these `flags` and, from them and its file, these `args`; none if it has no file.
    pub fn new(flags: &'a Run, args: &Run, engine: &Engine, targets: &'a Targets) -> Option<Self> {
        flags.config.as_ref()?;
        let now = Told { settings: Settings::with(args, engine), targets: targets.all().to_vec() };
        Some(Self { flags, targets, now })
    }

    /// Reads the file again and has it so.
    pub fn run(watch: &mut Watch<'_>) {
        // Taken out for as long as it works on what it is a part of.
        let Some(mut reload) = watch.reload.take() else { return };
        let file = reload.flags.config.as_deref().map(display).unwrap_or_default();
        match reload.read(watch.engine, watch.mount) {
            Ok(wish) => {
                let mut teller = Teller::new(watch.journal);
                reload.apply(wish, watch, &mut teller);
                teller.sum_up(file);
            }
            Err(error) => {
                exit::report(&error);
                let mistakes =
                    error.downcast_ref::<Faults>().map_or(1, |faults| faults.lines.len());
                watch.journal.publish(Record::ConfigRefused { file, mistakes: mistakes as u64 });
            }
        }
        watch.reload = Some(reload);
    }

    fn read(&self, engine: &Engine, mount: &CgroupMount) -> Result<Told> {
        let args = config::with_file(self.flags, mount)?;
        let targets = self.targets.again(mount, &args)?;
        Ok(Told { settings: Settings::with(&args, engine), targets })
    }

    fn apply(&mut self, wish: Told, watch: &mut Watch<'_>, teller: &mut Teller<'_>) {
        let settings = wish.settings.clone().while_running(&self.now.settings);
        for (key, from, to) in self.now.settings.changes(&wish.settings) {
            let is_done = settings.value(key).as_ref() == Some(&to);
            let outcome = if is_done { Outcome::Done } else { Outcome::NeedsRestart };
            teller.tell(None, key, from, to, outcome, None);
        }
        let old = std::mem::replace(&mut self.now, Told { settings, ..wish });
        let Told { settings, targets } = &self.now;
        if settings.no_drain != old.settings.no_drain {
            watch.drains = (!settings.no_drain).then(|| Drains::new(watch.engine, watch.mount));
        }
        let policy = |of: &Settings| Policy { observe: of.observe, oom_group: of.oom_group };
        if policy(settings) != policy(&old.settings) {
            let ordered = watch.duty.order(policy(settings));
            ordered.unwrap_or_else(|error| log::warn!("limits are enforced as before: {error:#}"));
        }
        let engine = watch.engine;
        let mut is_more = false;
        for change in diff(&old.targets, targets, |id| in_force(engine, id)) {
            let cgroup = &change.target().cgroup;
            match change {
                Change::Removed(_) => teller.named(cgroup, false, Ok(Some(STAYS))),
                Change::Limits(target, from, to) => {
                    let tried = self.set(target, to, watch);
                    let now = in_force(engine, target.cgroup.id);
                    teller.limits(cgroup, from, to, now, tried);
                }
                Change::Added(target) => {
                    // One that is refused is noted as to be adopted: the note has to go, too.
                    is_more = true;
                    let added = self.add(target, watch);
                    teller.named(cgroup, true, added.map(|()| None));
                }
            }
        }
        if is_more {
            watch.tree.catch_up();
            let adopted = adopt_noted(engine, watch.mount, &[].into(), settings.no_adopt);
            adopted.unwrap_or_else(|error| {
                log::warn!("what the new cgroups hold already is not charged: {error:#}");
            });
        }
    }

    /// As `memstock limit` does.
    fn set(&self, target: &Target, to: Limits, watch: &Watch<'_>) -> Result<()> {
        let (engine, cgroup) = (watch.engine, &target.cgroup);
        let Some(index) = engine.index_of(cgroup.id)? else { return Ok(()) };
        let room = Room { engine, cgroup, index };
        setting::set(&room, to.into(), false, &mut |record| watch.journal.publish(record))
    }

    /// As at the start; those below it are found by the caller, and what they hold is adopted then.
    fn add(&self, target: &Target, watch: &mut Watch<'_>) -> Result<()> {
        let engine = watch.engine;
        if target.memsw_limit.is_some_and(|limit| limit != NO_LIMIT) && engine.info().memsw == 0 {
            return Err(Failure::Usage.error(setting::NO_MEMSW));
        }
        if !self.now.settings.no_adopt {
            engine.pins().note_unadopted([target.cgroup.id])?;
        }
        let tracked = Tracked::read(engine, watch.mount)?.by_path();
        let index = register(engine, &tracked, target)?;
        watch.tree.added(&target.cgroup, index);
        Ok(())
    }
}

fn in_force(engine: &Engine, id: u64) -> Option<Limits> {
    let index = engine.index_of(id).ok()??;
    Some(Limits::of(&engine.counter(index).ok()?))
}
