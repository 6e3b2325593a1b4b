//! Decides which moments of a cgroup's usage are recorded: each holds the highest values since the last, so that no
//! peak is missed that the engine knows of. Writes nothing.

use std::time::Duration;

use anyhow::Result;
use memstock_common::index_of;

use crate::engine::Engine;
use crate::engine::needed::{Need, in_flight};
use crate::recording::Moment;

/// After this time a moment is recorded even if little has changed.
const AT_LEAST: Duration = Duration::from_secs(1);
/// A change of one part in so many is recorded at once.
const CHANGE: u64 = 100;

/// What an engine says of a cgroup, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Now {
    pub(super) usage: u64,
    pub(super) needed: u64,
    pub(super) file: u64,
    pub(super) watermark: u64,
    pub(super) needed_watermark: u64,
}

impl Now {
    /// Reads the counter `index`, and those that have pages in flight; none if it is no longer that of the cgroup `id`.
    pub(super) fn read(engine: &Engine, index: u32, id: u64) -> Result<Option<Self>> {
        let counter = engine.counter(index)?;
        if counter.id != id {
            return Ok(None);
        }
        let stocks = engine.all_stocks()?;
        let parent = |at| Some(index_of(engine.counter(at).ok()?.parent as u32));
        let flights = in_flight(parent, stocks.iter().map(|(_, stock)| stock));
        let Need { file, needed } =
            Need::of(&counter, flights.get(&index).copied().unwrap_or_default());
        Ok(Some(Self {
            usage: counter.memory.usage,
            needed,
            file,
            watermark: counter.memory.watermark,
            // The engine judges the last charge only at the next change.
            needed_watermark: counter.needed_watermark.max(needed),
        }))
    }
}

/// What else is recorded with a moment, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beside {
    pub(super) dirty: u64,
    pub(super) mlocked: u64,
    pub(super) shmem: u64,
    pub(super) slab_reclaimable: Option<u64>,
    pub(super) slab_unreclaimable: Option<u64>,
    pub(super) stacks: Option<u64>,
}

/// Decides which moments are recorded.
#[derive(Debug, Default)]
pub(super) struct Moments {
    last: Option<Moment>,
    /// The highest values since then.
    usage: u64,
    needed: u64,
    /// The engine's watermarks at the last look.
    watermark: u64,
    needed_watermark: u64,
}

impl Moments {
    /// Starts from the watermarks in `before`; `None` for a new cgroup.
    pub(super) fn since(before: Option<Now>) -> Self {
        let Now { watermark, needed_watermark, .. } = before.unwrap_or_default();
        Self { watermark, needed_watermark, ..Self::default() }
    }

    /// The moment to record at `at`, if it is the last or differs enough from the one recorded before.
    pub(super) fn step(
        &mut self,
        at: Duration,
        now: Now,
        beside: Beside,
        is_last: bool,
    ) -> Option<Moment> {
        let risen = |mark: u64, before: &mut u64| {
            if mark > *before {
                *before = mark;
                mark
            } else {
                0
            }
        };
        self.usage = self.usage.max(now.usage).max(risen(now.watermark, &mut self.watermark));
        let mark = risen(now.needed_watermark, &mut self.needed_watermark);
        self.needed = self.needed.max(now.needed).max(mark);
        let moment = Moment {
            at,
            usage: self.usage,
            needed: self.needed,
            file: now.file,
            dirty: beside.dirty,
            mlocked: beside.mlocked,
            shmem: beside.shmem,
            slab_reclaimable: beside.slab_reclaimable,
            slab_unreclaimable: beside.slab_unreclaimable,
            stacks: beside.stacks,
        };
        if !is_last && self.last.is_some_and(|last| !is_news(&last, &moment)) {
            return None;
        }
        (self.usage, self.needed) = (now.usage, now.needed);
        self.last = Some(moment);
        Some(moment)
    }
}

fn is_news(last: &Moment, now: &Moment) -> bool {
    if now.at.saturating_sub(last.at) >= AT_LEAST {
        return Moment { at: last.at, ..*now } != *last;
    }
    let [before, after] =
        [last, now].map(|it| [it.usage, it.needed, it.file, it.dirty, it.mlocked, it.shmem]);
    let enough = (last.usage / CHANGE).max(1);
    before.into_iter().zip(after).any(|(before, after)| before.abs_diff(after) >= enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(usage: u64, watermark: u64) -> Now {
        Now { usage, needed: usage, file: 0, watermark, needed_watermark: watermark }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn no_peak_is_missed_and_none_is_told_twice() {
        let mut moments = Moments::since(None);
        let beside = Beside::default();
        let mut step = |ms, now, last| moments.step(at(ms), now, beside, last).map(|it| it.usage);
        assert_eq!(step(0, now(1000, 1000), false), Some(1000));
        assert_eq!(step(10, now(1005, 1005), false), None, "half a percent");
        assert_eq!(step(20, now(1000, 3000), false), Some(3000), "in between");
        assert_eq!(step(30, now(1000, 3000), false), Some(1000), "and gone");
        assert_eq!(step(40, now(1000, 3000), false), None);
        assert_eq!(step(50, now(1004, 3000), false), None);
        assert_eq!(step(60, now(1000, 3000), true), Some(1004), "the highest since the last");
    }

    #[test]
    fn little_is_told_once_a_second_and_nothing_never() {
        let mut moments = Moments::since(Some(now(7, 5000)));
        let beside = Beside::default();
        let mut step = |ms, now| moments.step(at(ms), now, beside, false).map(|it| it.usage);
        assert_eq!(step(0, now(1000, 5000)), Some(1000), "a peak of before is none");
        assert_eq!(step(900, now(1001, 5000)), None);
        assert_eq!(step(1000, now(1001, 5000)), Some(1001));
        assert_eq!(step(5000, now(1001, 5000)), None);
    }
}
