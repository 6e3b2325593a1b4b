//! What the daemon does every second, or after a while: each task on its own, so that one that fails does not delay
//! others.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use super::{Done, Watch};
use crate::cli::command::reload::Reload;
use crate::cli::command::start::adopt_noted;
use crate::daemon::hotplug::Change;
use crate::daemon::parts::Part;
use crate::daemon::reparent::reparent;
use crate::enforce::enforcer::Enforcer;
use crate::enforce::swapped;
use crate::engine::Engine;
use crate::engine::kernel_slots::KernelSlots;
use crate::engine::sample::{losses, sample};
use crate::host::cgroup::CgroupMount;
use crate::host::workload::find::named;
use crate::host::{has_swap, page_size};
use crate::view::metrics::check::check;
use crate::view::metrics::health::{Reason, WINDOW};
use crate::view::metrics::{Facts, Question, Reading};
use crate::view::show::table;

/// The shortest time between two checks for drift.
const CHECK: Duration = Duration::from_secs(10);

impl Watch<'_> {
    pub(super) fn tick(&mut self) {
        self.flush_log();
        self.journal.tell_withheld(false);
        if self.read_losses() {
            // Lost events may be of cgroups that were created or removed.
            let caught_up = self.tree.catch_up();
            self.note(Part::Tree, caught_up);
            self.hotplug.catch_up();
        }
        self.hotplug.look_again();
        self.retry();
        self.look_at_swap();
        self.look_for_drift();
        self.look_for_names();
        self.enforce();
        self.tell_state();
    }

    /// Reads and reports losses, and looks for lost frees; returns whether events were lost.
    pub(super) fn read_losses(&mut self) -> bool {
        let Self { engine, sweep, state, .. } = self;
        let read = state.parts.attempt(Part::Accounting, || {
            let lost = losses(engine)?;
            sweep.step(engine)?;
            Ok(lost)
        });
        read.is_some_and(|lost| {
            self.state.lost = lost;
            self.losses.tell(&self.state.lost, self.journal)
        })
    }

    pub(super) fn has_deferred(&self) -> bool {
        self.tree.has_deferred() || self.state.adopts || self.state.parts.any_fails()
    }

    /// Retries deferred work.
    pub(super) fn retry(&mut self) {
        let Self { tree, state, .. } = self;
        let is_reparenting = state.work.is_under_way(Part::Reparent);
        state.parts.attempt(Part::Tree, || {
            tree.look_again()?;
            tree.retry()?;
            if is_reparenting { Ok(()) } else { tree.release() }
        });
        self.reparent_pages();
        self.follow_cpus();
        self.adopt();
    }

    /// Moves pages of removed cgroups to their ancestors.
    fn reparent_pages(&mut self) {
        let Self { engine, tree, state, .. } = self;
        if !state.work.is_rested(Part::Reparent) || !state.parts.is_due(Part::Reparent) {
            return;
        }
        let parents = match tree.parents() {
            Ok(Some(parents)) => parents,
            outcome => {
                state.parts.outcome(Part::Reparent, outcome);
                return;
            }
        };
        let pins = engine.pins().clone();
        let started = state.work.start(Part::Reparent, move |_| {
            reparent(&Engine::open(&pins)?, &parents).map(|()| Done::Reparented)
        });
        self.note(Part::Reparent, started);
    }

    pub(super) fn follow_cpus(&mut self) {
        let Self { hotplug, state, .. } = self;
        let changes = state.parts.attempt(Part::Cpus, || hotplug.changes());
        let records = changes.into_iter().flatten().flat_map(Change::into_records);
        records.for_each(|record| self.journal.publish(record));
    }

    /// Adopts pages of newly named cgroups, and what tasks of a named one allocated before it was tracked.
    pub(in crate::cli::command) fn adopt(&mut self) {
        let Self { engine, tree, state, reload, .. } = self;
        state.adopts |= tree.take_unadopted();
        // It walks over all memory of the host, and a named service may be restarted again and again.
        let is_free = match reload {
            Some(reload) if reload.is_adopting() => !state.work.is_under_way(Part::Adoption),
            _ => state.work.is_rested(Part::Adoption),
        };
        // Cgroups below those have to be tracked first.
        if !state.adopts || !is_free || !state.parts.is_due(Part::Adoption) || tree.has_unseen() {
            return;
        }
        let pins = engine.pins().clone();
        let started = state.work.start(Part::Adoption, move |_| {
            let (engine, mount) = (Engine::open(&pins)?, CgroupMount::find()?);
            adopt_noted(&engine, &mount, &BTreeSet::new(), false).map(|()| Done::Adopted)
        });
        self.note(Part::Adoption, started);
    }

    fn look_at_swap(&mut self) {
        let Self { engine, tree, state, .. } = self;
        let is_due = state.work.is_rested(Part::Swap) && state.parts.is_due(Part::Swap);
        if !is_due {
            return;
        }
        let has_changed = state.swap_changes.any();
        // What comes back when swap is turned off is charged to who turned it off, or to nobody.
        state.adopts_swapped |= has_changed && tree.adopts;
        state.has_swap_changed |= has_changed;
        // Without swap, once more: what was in it is in memory.
        let Some(has_swap) = state.parts.attempt(Part::Swap, has_swap) else { return };
        let counts = engine.info().memsw == 1 && (has_swap || state.has_swap_changed);
        let adopts = std::mem::take(&mut state.adopts_swapped);
        if !counts && !adopts {
            return;
        }
        state.has_swap_changed = false;
        let ids: Vec<_> = tree.ids().filter(|_| counts).collect();
        let pins = engine.pins().clone();
        let started = state.work.start(Part::Swap, move |_| {
            if adopts {
                swapped::note_unadopted(&Engine::open(&pins)?)?;
            }
            Ok(Done::Swapped(swapped::look(&CgroupMount::find()?, &ids, has_swap), adopts))
        });
        self.note(Part::Swap, started);
    }

    /// For metrics only.
    fn look_for_drift(&mut self) {
        let Self { engine, metrics, state, .. } = self;
        let is_due = state.work.is_rested(Part::Audit) && state.parts.is_due(Part::Audit);
        if metrics.is_none() || !is_due || Instant::now() < state.check_at {
            return;
        }
        state.check_at = Instant::now() + CHECK;
        let pins = engine.pins().clone();
        let started =
            state.work.start(Part::Audit, move |_| check(&Engine::open(&pins)?).map(Done::Checked));
        self.note(Part::Audit, started);
    }

    /// For a configuration that names containers, pods or units: they come, go and are renamed.
    fn look_for_names(&mut self) {
        let Self { reload, state, .. } = self;
        let Some(reload) = reload.as_mut().filter(|reload| reload.has_names()) else { return };
        if !state.work.is_rested(Part::Names) || !state.parts.is_due(Part::Names) {
            return;
        }
        let mut resolver = reload.take_resolver();
        let started = state.work.start(Part::Names, move |_| {
            let found = named(&CgroupMount::find()?, &mut resolver)?;
            Ok(Done::Named(Box::new(resolver), found))
        });
        self.note(Part::Names, started);
    }

    /// Starts a new enforcer if the old one has ended.
    fn enforce(&mut self) {
        let Self { engine, enforcer, policy, state, .. } = self;
        let parts = &mut state.parts;
        if enforcer.messages.is_closed() {
            if parts.is_due(Part::Enforcement) {
                match Enforcer::start(engine.pins(), *policy) {
                    Ok(started) => *enforcer = started,
                    Err(error) => parts.failed(Part::Enforcement, &error),
                }
            }
        } else if parts.quiet_for(Part::Enforcement).is_some_and(|quiet| quiet >= WINDOW) {
            // A limit that was not enforced is tried again when it is hit again; success is not reported.
            parts.worked(Part::Enforcement);
        }
    }

    /// Continues with the result of a part's work; none if it failed.
    pub(super) fn go_on(&mut self, part: Part, done: Option<Done>) {
        let is_done = done.is_some();
        match done {
            None if part == Part::Reload => Reload::limits_set(self, Vec::new()),
            None => self.state.has_swap_changed |= part == Part::Swap,
            Some(Done::Swapped(seen, adopts)) => {
                self.state.adopts |= adopts;
                let set = swapped::set(self.engine, &seen);
                self.note(Part::Swap, set);
            }
            Some(Done::Reparented) => self.retry(),
            Some(Done::Checked(proof)) => self.state.checked.note(proof),
            Some(Done::Adopted) => match self.engine.pins().unadopted() {
                Ok(noted) => {
                    let mut tracked = noted.iter().map(|&id| self.tree.index_of(id));
                    self.state.adopts = tracked.any(|index| index.is_some());
                }
                Err(error) => self.state.parts.failed(Part::Adoption, &error),
            },
            Some(Done::Limits(changed)) => Reload::limits_set(self, changed),
            Some(Done::Named(resolver, found)) => Reload::named(self, *resolver, found),
        }
        if part == Part::Adoption {
            // Some may have been noted meanwhile, and a reload waits for these as well.
            if is_done && self.state.adopts { self.adopt() } else { Reload::adopted(self) }
        }
    }

    fn reasons(&mut self) -> Vec<Reason> {
        let state = &mut self.state;
        let facts = Facts {
            losses: &state.lost,
            left_out: self.tree.left_out(),
            unreadable: state.unreadable,
            failing: &state.parts.failing(),
            is_enforcing: !self.enforcer.messages.is_closed(),
        };
        state.health.observe(std::time::Instant::now(), &facts);
        state.health.reasons(&state.checked)
    }

    /// Publishes why the daemon is degraded, for readers that do not ask it.
    fn tell_state(&mut self) {
        let reasons = self.reasons().iter().map(ToString::to_string).collect();
        let said = self.state.degraded.say(reasons);
        match (self.journal.outcome(), said) {
            // Nothing has been written to the journal since the last tick.
            (None, Ok(())) => {}
            (outcome, said) => {
                self.state.parts.outcome(Part::Journal, outcome.unwrap_or(Ok(())).and(said));
            }
        }
    }

    pub(super) fn answer(&mut self, question: Question) {
        // If they cannot be read, the next tick reports it.
        if let Ok(lost) = losses(self.engine) {
            self.state.lost = lost;
        }
        let reasons = self.reasons();
        let Self { engine, mount, journal, tree, metrics, kernel, state, .. } = self;
        let Some(metrics) = metrics else { return };
        let is_failing = state.parts.fails(Part::Metrics);
        let answered = metrics.answer(question, &reasons, is_failing, || {
            Ok(Reading {
                sample: sample(engine, mount, &mut state.paths)?,
                page_size: page_size(),
                stranded: stranded(kernel),
                records: journal.counts(),
                left_out: tree.left_out(),
                unreadable: state.unreadable,
                errors: state.parts.errors(),
                checked: state.checked.clone(),
                reasons: reasons.clone(),
            })
        });
        match answered {
            Ok(false) => {}
            outcome => {
                state.parts.outcome(Part::Metrics, outcome);
            }
        }
    }

    /// Prints the table; the only error is a closed pipe.
    pub(super) fn print(&mut self) -> io::Result<()> {
        if self.is_measured || self.quiet || !self.state.parts.is_due(Part::Table) {
            return Ok(());
        }
        let printed = self.write_table();
        if let Err(error) = &printed
            && let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            return Err(error.kind().into());
        }
        self.state.parts.outcome(Part::Table, printed);
        Ok(())
    }

    fn write_table(&mut self) -> Result<()> {
        let mut sample = sample(self.engine, self.mount, &mut self.state.paths)?;
        sample.degraded = self.state.degraded.said().to_vec();
        let mut out = self.out();
        table::write(&mut out, &sample, page_size())
            .and_then(|()| writeln!(out))
            .and_then(|()| out.flush())
            .context("cannot print the table")
    }
}

/// What the kernel's own stocks hold, if asked for. After an error, metrics are served without it.
fn stranded(kernel: &mut Option<KernelSlots>) -> HashMap<PathBuf, u64> {
    match kernel.as_mut().map(KernelSlots::stranded) {
        None => HashMap::new(),
        Some(Ok(found)) => found,
        Some(Err(error)) => {
            log::warn!("the kernel's own stocks are no longer served: {error:#}");
            *kernel = None;
            HashMap::new()
        }
    }
}
