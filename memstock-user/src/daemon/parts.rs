//! The state of the daemon's parts. An error in one of them never ends the daemon: it is reported, counted and shown
//! for as long as it lasts, and the work is tried again after growing pauses.
//!
//! Each part is one thing that is done repeatedly, so its next success shows that it works again.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::journal::{Journal, Record};

/// The pause after a first failure; each further failure doubles it.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);
/// How long the same error is not reported again if the part has worked in between.
const QUIET: Duration = Duration::from_secs(60);

/// A part of the daemon.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Part {
    /// Follows cgroups that come and go.
    Tree,
    /// Gives the pages of removed cgroups to their ancestors.
    Reparent,
    /// Follows CPUs that go offline and come online.
    Cpus,
    /// Drains stocks when the kernel reclaims or a limit is near.
    Drains,
    /// Enforces limits.
    Enforcement,
    /// Reads what is in swap.
    Swap,
    /// Reads the counters of losses, and searches for lost frees.
    Accounting,
    /// Charges what cgroups held before they were tracked.
    Adoption,
    /// Proves that usage is what the pages add up to.
    Audit,
    /// Answers HTTP requests.
    Metrics,
    /// Writes the event stream, and the reasons for being degraded.
    Journal,
    /// Applies a configuration that was read again.
    Reload,
    /// Looks for workloads that the configuration gives by name.
    Names,
    /// Prints tables.
    Table,
}

impl Part {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The name that people see.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The number of errors of each part.
pub type Errors = [u64; Part::ALL.len()];

/// The state of one part.
#[derive(Debug, Default)]
struct State {
    errors: u64,
    /// None while it works.
    failing: Option<Failing>,
    /// The last error and when it last happened; not reported again within [`QUIET`].
    reported: Option<(String, Instant)>,
}

#[derive(Debug)]
struct Failing {
    error: String,
    pause: Duration,
    since: Instant,
    /// Whether it was reported.
    is_reported: bool,
}

impl State {
    fn is_due(&self, now: Instant) -> bool {
        self.failing.as_ref().is_none_or(|failing| now >= failing.since + failing.pause)
    }

    /// Records a failure; returns whether it is to be reported.
    fn failed(&mut self, now: Instant, error: String) -> bool {
        self.errors += 1;
        let is_reported = self
            .reported
            .as_ref()
            .is_some_and(|(reported, at)| *reported == error && now.duration_since(*at) < QUIET);
        let before = self.failing.take();
        let pause = before.as_ref().map_or(FIRST, |it| (2 * it.pause).min(LONGEST));
        let was_reported = before.is_some_and(|it| it.is_reported);
        self.reported = Some((error.clone(), now));
        self.failing =
            Some(Failing { error, pause, since: now, is_reported: was_reported || !is_reported });
        !is_reported
    }

    /// Records a success; returns whether it is to be reported.
    fn worked(&mut self) -> bool {
        self.failing.take().is_some_and(|failing| failing.is_reported)
    }
}

/// The state of all parts.
#[derive(Debug)]
pub struct Parts<'a> {
    journal: &'a Journal,
    states: [State; Part::ALL.len()],
}

impl<'a> Parts<'a> {
    /// Starts with every part working.
    pub fn new(journal: &'a Journal) -> Self {
        Self { journal, states: Default::default() }
    }

    /// Whether it is time to try the part: it works, or its pause is over.
    pub fn is_due(&self, part: Part) -> bool {
        self.states[part as usize].is_due(Instant::now())
    }

    /// Runs `work` if it is due; returns the result of a success.
    pub fn attempt<T>(&mut self, part: Part, work: impl FnOnce() -> Result<T>) -> Option<T> {
        if self.is_due(part) { self.outcome(part, work()) } else { None }
    }

    /// Records the outcome of an attempt.
    pub fn outcome<T>(&mut self, part: Part, outcome: Result<T>) -> Option<T> {
        match outcome {
            Ok(made) => {
                self.worked(part);
                Some(made)
            }
            Err(error) => {
                self.failed(part, &error);
                None
            }
        }
    }

    /// Records a success.
    pub fn worked(&mut self, part: Part) {
        if self.states[part as usize].worked() {
            self.journal.publish(Record::PartRecovered { part: part.name().into() });
        }
    }

    /// Records a failure of something that is not retried by itself: the part's next attempt shows whether it works.
    pub fn failed(&mut self, part: Part, error: &anyhow::Error) {
        let error = format!("{error:#}");
        if self.states[part as usize].failed(Instant::now(), error.clone()) {
            self.journal.publish(Record::PartFailed { part: part.name().into(), error });
        }
    }

    /// Whether this part is failing.
    pub fn fails(&self, part: Part) -> bool {
        self.states[part as usize].failing.is_some()
    }

    /// Whether any part is failing.
    pub fn any_fails(&self) -> bool {
        self.states.iter().any(|state| state.failing.is_some())
    }

    /// How long ago the last error of a failing part was.
    pub fn quiet_for(&self, part: Part) -> Option<Duration> {
        self.states[part as usize].failing.as_ref().map(|failing| failing.since.elapsed())
    }

    /// The parts that are failing, with their errors.
    pub fn failing(&self) -> Vec<(Part, String)> {
        let all = Part::ALL.iter().zip(&self.states);
        let failing =
            all.filter_map(|(&part, it)| Some((part, it.failing.as_ref()?.error.clone())));
        failing.collect()
    }

    /// The number of errors of each part.
    pub fn errors(&self) -> Errors {
        self.states.each_ref().map(|state| state.errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn pauses_grow_and_begin_anew() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.is_due(start));
        let mut now = start;
        for pause in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            state.failed(now, "no".into());
            assert!(!state.is_due(at(now, pause - 1)) && state.is_due(at(now, pause)), "{pause}");
            now = at(now, pause);
        }
        assert!(state.worked());
        assert!(state.is_due(now) && !state.worked());
        state.failed(now, "no".into());
        assert!(state.is_due(at(now, 100)));
        assert_eq!(state.errors, 10);
    }

    #[test]
    fn a_text_is_told_of_once() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.failed(start, "a".into()));
        assert!(!state.failed(at(start, 1000), "a".into()));
        assert!(state.failed(at(start, 2000), "b".into()));
        assert!(state.worked());
        // The error comes and goes.
        assert!(!state.failed(at(start, 3000), "b".into()));
        assert!(!state.worked());
        assert!(state.failed(at(start, 63_000), "b".into()));
        assert!(state.worked());
    }
}
