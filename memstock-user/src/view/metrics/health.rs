//! Decides whether a daemon's figures and its enforcement can be relied on, and if not, why.
//!
//! A daemon is degraded by what somebody has to know or act on, never by what a busy host causes and memstock repairs
//! by itself (`docs/metrics.md` has the table). A loss counts for [`WINDOW`], a defect until it is gone.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use memstock_common::Loss;
use memstock_common::stat::{ProbeStat, Stat};

use super::Facts;
use super::check::Checked;
use super::vmstat::moved_pages;
use crate::daemon::parts::Part;

/// How long a loss is a reason.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Fewer missed runs of the probes in a window are ignored.
const MISSED_FLOOR: u64 = 1000;
/// One missed run per this many pages allocated and freed on the host is tolerated: `docs/limitations.md` promises 99.9
/// % agreement with the kernel under load.
const MISSED_BEARABLE: u64 = 1000;

/// Losses that must never happen: figures are off by as much from then on.
const DEFECTS: [Loss; 3] = [Loss::CountersMissing, Loss::PagesOutside, Loss::BlocksMixed];

/// What can be wrong.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Cause {
    /// Events were lost or could not be read: a limit may have been enforced late.
    EventsLost,
    /// Too many runs of the probes were missed.
    ProgramsMissed,
    /// A cgroup's usage is not the sum of its pages.
    Drift,
    /// Pages were not charged, or were charged to the wrong cgroup.
    Miscounted,
    /// Cgroups could not be registered, and are charged to an ancestor.
    #[strum(serialize = "cgroups-left-out")]
    LeftOut,
    /// Nobody reads the events or enforces limits.
    NoEnforcer,
    /// A part of the daemon fails and is retried.
    PartFails,
}

impl Cause {
    /// Every cause.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Its name in output.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Why an engine is degraded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What is wrong.
    pub cause: Cause,
    /// How much, and what to do.
    pub text: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause.name(), self.text)
    }
}

/// Counters that only rise.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    events_lost: u64,
    unreadable: u64,
    left_out: u64,
    missed: u64,
    moved: u64,
}

impl Counted {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            events_lost: self.events_lost.saturating_sub(earlier.events_lost),
            unreadable: self.unreadable.saturating_sub(earlier.unreadable),
            left_out: self.left_out.saturating_sub(earlier.left_out),
            missed: self.missed.saturating_sub(earlier.missed),
            moved: self.moved.saturating_sub(earlier.moved),
        }
    }
}

/// What was observed so far.
#[derive(Debug, Default)]
pub struct Health {
    /// The counters over one window, and the last ones before it.
    history: VecDeque<(Instant, Counted)>,
    defects: Vec<(&'static str, u64)>,
    has_no_enforcer: bool,
    failing: Vec<(Part, String)>,
}

impl Health {
    /// Records the counters `now`. What those of the engine counted before the first call is ignored.
    pub fn observe(&mut self, now: Instant, facts: &Facts) {
        let loss = |stat: Stat| {
            facts.losses.iter().find(|(lost, _)| *lost == stat).map_or(0, |&(_, value)| value)
        };
        let counted = Counted {
            events_lost: loss(Loss::EventsLost.stat()),
            unreadable: facts.unreadable,
            left_out: facts.left_out,
            missed: loss(ProbeStat::RecursionMisses.stat()),
            // If it cannot be read, no missed run is tolerated.
            moved: moved_pages().unwrap_or_default(),
        };
        self.note(now, counted);
        let defects = DEFECTS.map(|defect| (defect.stat().name, loss(defect.stat())));
        self.defects = defects.into_iter().filter(|&(_, value)| value > 0).collect();
        self.has_no_enforcer = !facts.is_enforcing;
        self.failing = facts.failing.to_vec();
    }

    fn note(&mut self, now: Instant, counted: Counted) {
        if self.history.is_empty() {
            self.history.push_back((now, Counted { unreadable: 0, left_out: 0, ..counted }));
        }
        self.history.push_back((now, counted));
        let is_before = |entry: Option<&(Instant, Counted)>| {
            entry.is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        };
        // The last entry before the window is where it starts from.
        while is_before(self.history.get(1)) {
            self.history.pop_front();
        }
    }

    fn rise(&self) -> Counted {
        match (self.history.front(), self.history.back()) {
            (Some((_, first)), Some((_, last))) => last.since(first),
            _ => Counted::default(),
        }
    }

    /// Why the daemon is degraded, going by the last observation and the checks; empty if it is not.
    pub fn reasons(&self, checked: &Checked) -> Vec<Reason> {
        let Counted { events_lost, unreadable, left_out, missed, moved } = self.rise();
        let mut reasons = Vec::new();
        let mut say = |cause, text| reasons.push(Reason { cause, text });
        if events_lost + unreadable > 0 {
            say(
                Cause::EventsLost,
                format!(
                    "{} in the last minute: a limit may have been enforced late",
                    events_lost + unreadable
                ),
            );
        }
        if missed >= MISSED_FLOOR && missed.saturating_mul(MISSED_BEARABLE) > moved {
            say(
                Cause::ProgramsMissed,
                format!(
                    "{missed} runs of the probes in the last minute, of {moved} pages allocated and freed \
                     on the host: \"memstock audit --repair\" repairs what they left behind"
                ),
            );
        }
        if let Some(proof) = &checked.last
            && (proof.drift != 0 || proof.ownerless != 0)
        {
            let ago = proof.at.elapsed().as_secs();
            let what = match (proof.drift, proof.ownerless) {
                (0, ownerless) => format!("{ownerless} pages of no cgroup"),
                (drift, _) => format!("{drift} pages of {} do not add up", proof.cgroup),
            };
            say(
                Cause::Drift,
                format!("{what}, found {ago} s ago: \"memstock audit\" has the details"),
            );
        }
        if !self.defects.is_empty() {
            let defects: Vec<_> =
                self.defects.iter().map(|(name, value)| format!("{name} {value}")).collect();
            say(
                Cause::Miscounted,
                format!(
                    "{}: \"memstock stop\" and \"memstock run\" start anew",
                    defects.join(", ")
                ),
            );
        }
        if left_out > 0 {
            say(
                Cause::LeftOut,
                format!(
                    "{left_out} in the last minute: they are charged to the cgroup above them, if that is tracked"
                ),
            );
        }
        if self.has_no_enforcer {
            say(Cause::NoEnforcer, "events are not read and limits not enforced; retrying".into());
        }
        for (part, error) in &self.failing {
            say(Cause::PartFails, format!("{}: {error}", part.name()));
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Proof;
    use super::*;

    fn causes(health: &Health, checked: &Checked) -> Vec<Cause> {
        health.reasons(checked).iter().map(|reason| reason.cause).collect()
    }

    #[test]
    fn a_loss_is_a_reason_for_a_minute() {
        let (mut health, none) = (Health::default(), Checked::default());
        let start = Instant::now();
        let lost = |events_lost| Counted { events_lost, ..Counted::default() };
        let at = |seconds| start + Duration::from_secs(seconds);
        // Counted before the first observation.
        health.note(at(0), lost(5));
        assert!(causes(&health, &none).is_empty());
        health.note(at(1), lost(6));
        for second in 2..=60 {
            health.note(at(second), lost(6));
            assert_eq!(causes(&health, &none), [Cause::EventsLost], "{second}");
        }
        health.note(at(61), lost(6));
        assert!(causes(&health, &none).is_empty());
        assert!(health.history.len() <= 61);
    }

    #[test]
    fn one_missed_run_in_a_thousand_is_borne() {
        let missed = |missed, moved| {
            let mut health = Health::default();
            health.note(Instant::now(), Counted::default());
            health.note(Instant::now(), Counted { missed, moved, ..Counted::default() });
            causes(&health, &Checked::default())
        };
        assert!(missed(999, 0).is_empty(), "too few to be judged");
        assert!(missed(3000, 3_000_000).is_empty());
        assert_eq!(missed(3000, 2_999_999), [Cause::ProgramsMissed]);
        assert_eq!(missed(u64::MAX, u64::MAX - 1), [Cause::ProgramsMissed]);
    }

    #[test]
    fn the_last_proof_stands() {
        let checked = |drift, ownerless| {
            let proof = Proof { at: Instant::now(), drift, cgroup: "/a".into(), ownerless };
            Checked { exact: 1, moving: 7, last: Some(proof) }
        };
        let health = Health::default();
        assert!(health.reasons(&checked(0, 0)).is_empty());
        let [drift, ownerless] = [(-3, 0), (0, 2)].map(|(drift, ownerless)| {
            let reasons = health.reasons(&checked(drift, ownerless));
            assert_eq!(reasons.len(), 1);
            reasons[0].to_string()
        });
        assert!(
            drift.starts_with("drift: -3 pages of /a do not add up, found 0 s ago: "),
            "{drift}"
        );
        assert!(ownerless.starts_with("drift: 2 pages of no cgroup, found"), "{ownerless}");
    }

    #[test]
    fn what_rises_between_two_looks_is_judged() {
        let mut health = Health::default();
        let lost = [(Loss::EventsLost.stat(), 1), (ProbeStat::RecursionMisses.stat(), 1 << 50)];
        for (losses, count) in [(&lost[..0], 0), (&lost, 1)] {
            let (left_out, unreadable) = (count, count);
            let facts = Facts { losses, left_out, unreadable, failing: &[], is_enforcing: true };
            health.observe(Instant::now(), &facts);
        }
        let reasons = health.reasons(&Checked::default());
        let found: Vec<_> = reasons.iter().map(|reason| reason.cause).collect();
        assert_eq!(found, [Cause::EventsLost, Cause::ProgramsMissed, Cause::LeftOut]);
        assert!(reasons[0].text.starts_with("2 in the last minute"), "{}", reasons[0]);
    }

    #[test]
    fn what_is_so_now_is_no_reason_later() {
        let mut health = Health::default();
        let miscounted = [(Loss::CountersMissing.stat(), 2)];
        let bad = Facts {
            losses: &miscounted,
            left_out: 0,
            unreadable: 0,
            failing: &[(Part::Journal, "no space".into()), (Part::Tree, "no".into())],
            is_enforcing: false,
        };
        health.observe(Instant::now(), &bad);
        let found = causes(&health, &Checked::default());
        assert_eq!(
            found,
            [Cause::Miscounted, Cause::NoEnforcer, Cause::PartFails, Cause::PartFails]
        );
        let reasons = health.reasons(&Checked::default());
        assert_eq!(reasons.last().unwrap().to_string(), "part-fails: tree: no");
        let good = Facts { losses: &[], failing: &[], is_enforcing: true, ..bad };
        health.observe(Instant::now(), &good);
        assert!(causes(&health, &Checked::default()).is_empty());
    }
}
