//! Usage and need over the time of a recording, as another host would have them: with the kernel's own memory where it
//! was recorded, and with swap. All figures are in pages.

use std::time::Duration;

use crate::recording::{Moment, Recording};

/// How far back a moment reaches: changes are recorded within this time, so a figure after a long silence does not hold
/// for all of it.
const RESOLUTION: Duration = Duration::from_millis(10);

/// The number of equal parts into which a run is divided to say when something happened.
pub const PARTS: usize = 200;

/// The state from one moment to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The beginning of the step.
    pub from: Duration,
    /// Usage, the kernel's own memory included.
    pub usage: u64,
    /// The part of the usage that could not be reclaimed.
    pub needed: u64,
    /// The part that could have been reclaimed without swap: page cache and slab.
    pub cached: u64,
    /// Page cache that is dirty or under writeback.
    pub dirty: u64,
    /// Shared memory and tmpfs, part of what is needed.
    pub shmem: u64,
    /// The kernel's own memory, part of what is needed.
    pub kernel: u64,
}

/// The steps of a run, in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The steps.
    pub steps: Vec<Step>,
    /// When the run ended.
    pub end: Duration,
}

impl Timeline {
    /// The timeline of a recording, if there were `swap` pages of swap for it.
    pub fn of(recording: &Recording, swap: u64) -> Self {
        let mut steps = Vec::<Step>::with_capacity(recording.moments.len());
        let (mut kernel, mut before) = (Kernel::default(), Duration::ZERO);
        for moment in &recording.moments {
            kernel.update(moment);
            let from = moment.at.saturating_sub(RESOLUTION).max(before);
            steps.push(kernel.step(moment, from, swap));
            before = before.max(moment.at);
        }
        // A recording that was cut off has no end, and its figures may not have changed while other things happened.
        let last = [
            recording.end.as_ref().map(|end| end.at),
            recording.peaks.last().map(|peak| peak.at),
            recording.tasks.last().map(|event| event.at),
            recording.accesses.last().map(|access| access.at),
        ];
        let end = last.into_iter().flatten().fold(before, Duration::max);
        Self { steps, end }
    }

    /// The number of the part of the run, of [`PARTS`], that contains this time.
    pub fn part(&self, at: Duration) -> u16 {
        let part = at.as_nanos() * PARTS as u128 / self.end.as_nanos().max(1);
        u16::try_from(part.min(PARTS as u128 - 1)).unwrap_or(0)
    }

    /// The highest usage.
    pub fn peak(&self) -> u64 {
        self.steps.iter().map(|step| step.usage).max().unwrap_or(0)
    }

    /// The highest need.
    pub fn needed_peak(&self) -> u64 {
        self.steps.iter().map(|step| step.needed).max().unwrap_or(0)
    }

    /// When more than `limit` pages were needed for the first time.
    pub fn killed_at(&self, limit: u64) -> Option<Duration> {
        self.steps.iter().find(|step| step.needed > limit).map(|step| step.from)
    }

    /// The most dirty cache that would not have had room at `limit`, and whose writeback would have been waited for.
    pub fn dirty_above(&self, limit: u64) -> u64 {
        let above = |step: &Step| {
            step.needed.saturating_add(step.dirty).saturating_sub(limit).min(step.dirty)
        };
        self.steps.iter().map(above).max().unwrap_or(0)
    }

    /// The most dirty cache at any time.
    pub fn most_dirty(&self) -> u64 {
        self.steps.iter().map(|step| step.dirty).max().unwrap_or(0)
    }

    /// The dirty cache that was left.
    pub fn dirty_at_end(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.dirty)
    }

    /// Each step with its duration.
    pub fn lasting(&self) -> impl Iterator<Item = (&Step, Duration)> {
        let ends = self.steps.iter().skip(1).map(|step| step.from).chain([self.end]);
        self.steps.iter().zip(ends).map(|(step, end)| (step, end.saturating_sub(step.from)))
    }
}

/// The kernel's own memory at its last reading; it is read less often than the rest.
#[derive(Clone, Copy, Debug, Default)]
struct Kernel {
    reclaimable: u64,
    unreclaimable: u64,
    stacks: u64,
}

impl Kernel {
    fn update(&mut self, moment: &Moment) {
        self.reclaimable = moment.slab_reclaimable.unwrap_or(self.reclaimable);
        self.unreclaimable = moment.slab_unreclaimable.unwrap_or(self.unreclaimable);
        self.stacks = moment.stacks.unwrap_or(self.stacks);
    }

    fn step(&self, moment: &Moment, from: Duration, swap: u64) -> Step {
        let kernel = self.unreclaimable.saturating_add(self.stacks);
        // Locked cache and locked private memory are recorded as one; the private part is at most what is needed.
        let locked_cache = moment.mlocked.saturating_sub(moment.needed).min(moment.file);
        let swappable = moment.needed.saturating_sub(moment.mlocked).min(swap);
        let usage = moment.usage.saturating_add(kernel).saturating_add(self.reclaimable);
        let needed = moment.needed.saturating_add(locked_cache).saturating_add(kernel);
        Step {
            from,
            usage,
            needed: needed - swappable,
            cached: usage.saturating_sub(needed),
            dirty: moment.dirty,
            shmem: moment.shmem.min(moment.needed),
            kernel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{End, TaskEvent, TaskEventKind};

    fn moment(ms: u64, usage: u64, needed: u64) -> Moment {
        let at = Duration::from_millis(ms);
        Moment { at, usage, needed, file: usage - needed, ..Moment::default() }
    }

    fn of(moments: &[Moment], swap: u64) -> Timeline {
        Timeline::of(&Recording { moments: moments.to_vec(), ..Recording::default() }, swap)
    }

    #[test]
    fn a_moment_reaches_back_to_the_one_before_but_not_far() {
        let timeline = of(&[moment(0, 5, 5), moment(4, 9, 7), moment(1000, 20, 8)], 0);
        let from: Vec<_> = timeline.steps.iter().map(|step| step.from.as_millis()).collect();
        assert_eq!(from, [0, 0, 990]);
        assert_eq!((timeline.peak(), timeline.needed_peak()), (20, 8));
        assert_eq!(timeline.killed_at(7), Some(Duration::from_millis(990)));
        assert_eq!(timeline.killed_at(8), None);
        let lasting: Vec<_> = timeline.lasting().map(|(_, time)| time.as_millis()).collect();
        assert_eq!(lasting, [0, 990, 10]);
        let parts = [0, 499, 500, 1000, 9999].map(|ms| timeline.part(Duration::from_millis(ms)));
        assert_eq!(parts, [0, 99, 100, 199, 199]);
    }

    #[test]
    fn one_that_was_cut_ends_with_the_last_that_happened() {
        let at = Duration::from_secs;
        let event = TaskEvent { at: at(3), pid: 1, kind: TaskEventKind::Died };
        let mut cut = Recording { moments: vec![moment(0, 5, 5)], ..Recording::default() };
        assert_eq!(Timeline::of(&cut, 0).end, Duration::ZERO);
        cut.tasks.push(event);
        assert_eq!(Timeline::of(&cut, 0).end, at(3));
        cut.end = Some(End { at: at(4), ..End::default() });
        assert_eq!(Timeline::of(&cut, 0).end, at(4));
    }

    #[test]
    fn the_kernels_own_is_needed_and_remembered() {
        let told = Moment {
            slab_reclaimable: Some(10),
            slab_unreclaimable: Some(3),
            stacks: Some(2),
            ..moment(0, 100, 40)
        };
        let timeline = of(&[told, moment(10, 110, 50)], 0);
        assert_eq!((timeline.peak(), timeline.needed_peak()), (125, 55));
    }

    #[test]
    fn swap_takes_what_is_not_locked() {
        let locked = Moment { mlocked: 15, ..moment(0, 100, 40) };
        assert_eq!(of(&[locked], 10).needed_peak(), 30);
        assert_eq!(of(&[locked], 1000).needed_peak(), 15);
        let swapped = of(&[locked], 1000);
        assert_eq!((swapped.peak(), swapped.steps[0].cached), (100, 60), "it was all used");
        // More pages are locked than needed, so the rest is page cache.
        let cache = Moment { mlocked: 55, ..moment(0, 100, 40) };
        assert_eq!(of(&[cache], 0).needed_peak(), 55);
    }

    #[test]
    fn dirty_cache_without_room_is_waited_for() {
        let dirty = Moment { dirty: 30, ..moment(0, 100, 40) };
        let timeline = of(&[dirty], 0);
        assert_eq!([80, 60, 40, 10].map(|limit| timeline.dirty_above(limit)), [0, 10, 30, 30]);
    }
}
