//! One recording at any limit: the verdict, what is read again and how much slower that is, and who dies. Decides by
//! the figures of the modules beside it; renders nothing.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::curve::Curve;
use super::timeline::{PARTS, Timeline};
use super::uses::Uses;
use super::verdict::{Peaks, Verdict};
use super::{high, lru, mapped};
use crate::recording::{AccessKind, Lru, Recording, TaskEventKind};

/// A run that takes longer by this part is *slow*.
pub const SLOW: f64 = 0.05;
/// Of a page that is read again, where the recording does not know: 4 KiB at 200 MiB a second.
const READ_NS_PER_PAGE: u64 = 20_000;
/// So many of the files that are read again are named, if they are this part of it all.
const FILES: usize = 3;
const WORTH_NAMING: f64 = 0.05;

/// Which kernel is asked how it would reclaim.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[strum(serialize_all = "lowercase")]
pub enum Kernel {
    /// The one of the recording.
    #[default]
    Host,
    /// One with active and inactive lists.
    Classic,
    /// One with generations (MGLRU).
    Mglru,
    /// None: pages go in the order of their last use, whatever that was.
    Lru,
}

impl Kernel {
    /// All of them.
    pub const VARIANTS: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;
}

/// What is to be different from the recorded run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WhatIf {
    /// Bytes of swap that it may use.
    pub swap: u64,
    /// Whether the limits are `memory.high`, which nobody is killed at.
    pub is_high: bool,
    /// Who reclaims.
    pub kernel: Kernel,
}

/// Who would be killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// When.
    pub at: Duration,
    /// Its process id and name, and its anonymous memory in bytes; none where nobody was seen.
    pub task: Option<(u32, String, u64)>,
}

/// What a limit would do.
#[derive(Clone, Debug)]
pub struct Row {
    /// In bytes.
    pub limit: u64,
    /// The verdict: never [`Verdict::Near`].
    pub verdict: Verdict,
    /// Whether this limit is so near to what is needed that runs at it differ: it may also live.
    pub is_near: bool,
    /// Bytes read again; none if it dies before, or if it is not known what was read.
    pub reread: Option<u64>,
    /// Of them, by the parts of the run.
    pub reread_by_time: Vec<u64>,
    /// By what part it takes longer; none as above.
    pub slowdown: Option<f64>,
    /// Of the files that are read again most, the number in the recording, and bytes.
    pub files: Vec<(u32, u64)>,
    /// Bytes of mapped files for which there would be no room.
    pub unmapped: u64,
    /// Bytes of dirty cache that would be waited for.
    pub dirty: u64,
    /// For how long its tasks would be held up at `memory.high`.
    pub throttled: Duration,
    /// Who is killed first.
    pub victim: Option<Victim>,
}

/// A recording that can be judged.
#[derive(Debug)]
pub struct Rehearsal<'a> {
    /// What is judged.
    pub recording: &'a Recording,
    /// And how.
    pub what_if: WhatIf,
    /// What was needed when.
    pub timeline: Timeline,
    /// What was done with the page cache.
    pub(super) uses: Uses,
    /// Of an ideal LRU; only where that is asked for.
    curve: Option<Curve>,
    /// Whether uses of the page cache were recorded: older kernels only tell what enters and leaves it.
    pub(super) knows_use: bool,
}

impl<'a> Rehearsal<'a> {
    /// Takes the time that a look at each access takes.
    pub fn new(recording: &'a Recording, what_if: WhatIf) -> Self {
        let swap = what_if.swap / page_size(recording);
        let timeline = Timeline::of(recording, swap);
        let uses = Uses::of(recording, &timeline);
        let curve = (what_if.kernel == Kernel::Lru).then(|| Curve::of(&uses));
        let is_use = |kind| matches!(kind, AccessKind::Read | AccessKind::Mapped);
        let knows_use = recording.accesses.iter().any(|access| is_use(access.kind));
        Self { recording, what_if, timeline, uses, curve, knows_use }
    }

    /// The highest figures, in bytes.
    pub fn peaks(&self) -> Peaks {
        let (usage, needed) = (self.timeline.peak(), self.timeline.needed_peak());
        Peaks { usage: self.bytes(usage), needed: self.bytes(needed) }
    }

    /// The smallest limit in bytes at which nothing is reclaimed.
    pub fn fits_from(&self) -> u64 {
        let usage = self.peaks().usage;
        if self.what_if.is_high { usage } else { usage.max(self.lives_from()) }
    }

    /// The smallest limit in bytes at which nobody is killed, or of `memory.high`, nobody held up.
    pub fn lives_from(&self) -> u64 {
        let peaks = self.peaks();
        if self.what_if.is_high {
            return peaks.needed;
        }
        peaks.lives_from().saturating_add(self.killed_for())
    }

    /// Bytes of dirty cache that the kernel kills for instead of waiting for them to be written: with MGLRU, before Linux
    /// 6.13 (1bc542c6a0d1). A fifth of what a cgroup may have is allowed to be dirty (`vm.dirty_ratio`), so this is at
    /// most a quarter of the rest.
    pub(super) fn killed_for(&self) -> u64 {
        if self.lru() != Lru::MultiGen || !self.recording.header.is_before(6, 13) {
            return 0;
        }
        self.bytes(self.timeline.dirty_above(0)).min(self.peaks().lives_from() / 4)
    }

    /// How much slower it is with so many bytes of memory, what is read again, and who dies.
    pub fn judge(&self, limit: u64) -> Row {
        let pages = limit / page_size(self.recording);
        let peaks = self.peaks();
        let is_dead = !self.what_if.is_high && limit < peaks.needed;
        let is_near = !self.what_if.is_high && !is_dead && limit < self.lives_from();
        let mut row = Row {
            limit,
            verdict: Verdict::Fits,
            is_near,
            reread: Some(0),
            reread_by_time: Vec::new(),
            slowdown: Some(0.0),
            files: Vec::new(),
            unmapped: 0,
            dirty: 0,
            throttled: Duration::ZERO,
            victim: None,
        };
        if is_dead || is_near {
            row.verdict = Verdict::Oom;
            row.victim = self.victim(pages);
            (row.reread, row.slowdown) = (None, None);
        }
        if !is_dead && limit < self.fits_from() {
            self.read_again(&mut row, pages);
        }
        if row.verdict == Verdict::Fits && limit < self.fits_from() {
            let is_slow = row.slowdown.is_some_and(|part| part >= SLOW);
            row.verdict = if is_slow { Verdict::Slow } else { Verdict::Reclaims };
        }
        row
    }

    fn read_again(&self, row: &mut Row, limit: u64) {
        row.dirty = self.bytes(self.timeline.dirty_above(limit));
        if self.what_if.is_high {
            row.throttled = high::throttled(&self.timeline, limit);
        }
        let end = self.timeline.end;
        // Of a run that took no time nothing can be a part.
        let part = |extra: f64| Some(extra / end.as_secs_f64()).filter(|part| part.is_finite());
        if self.is_blind() {
            // At least as long as its tasks are held up.
            let is_high = self.what_if.is_high;
            row.slowdown = part(row.throttled.as_secs_f64()).filter(|_| is_high);
            row.reread = None;
            return;
        }
        let mapped = mapped::rereads(&self.uses, limit, end, PARTS);
        row.unmapped = self.bytes(mapped::most_missing(&self.uses, limit));
        let (rereads, by_file) = match &self.curve {
            Some(curve) => (curve.rereads(limit), Vec::new()),
            None => {
                let lru::Rereads { by_time, by_file } =
                    lru::simulate(&self.uses, self.lru(), limit);
                (by_time, by_file)
            }
        };
        let by_time = mapped.iter().zip(&rereads).map(|(&one, &other)| one.saturating_add(other));
        let by_time: Vec<_> = by_time.collect();
        let pages = by_time.iter().fold(0, |sum: u64, &more| sum.saturating_add(more));
        row.reread = Some(self.bytes(pages));
        row.reread_by_time = by_time.iter().map(|&pages| self.bytes(pages)).collect();
        row.files = self.largest(&by_file);
        let waited = self.bytes(pages).saturating_add(row.dirty);
        let extra = self.seconds_to_read(waited) + row.throttled.as_secs_f64();
        row.slowdown = part(extra);
    }

    fn largest(&self, by_file: &[u64]) -> Vec<(u32, u64)> {
        let all = by_file.iter().sum::<u64>() as f64;
        let is_large = |pages: u64| pages > 0 && pages as f64 >= WORTH_NAMING * all;
        let files = (0..).zip(by_file).filter(|&(_, &pages)| is_large(pages));
        let mut files: Vec<_> = files.map(|(file, &pages)| (file, self.bytes(pages))).collect();
        files.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        files.truncate(FILES);
        files
    }

    fn victim(&self, limit: u64) -> Option<Victim> {
        // Near to what is needed it is the last peak that may be too much.
        let needed = limit.min(self.timeline.needed_peak().saturating_sub(1));
        let at = self.timeline.killed_at(needed)?;
        let nearest = self.recording.peaks.iter().min_by_key(|peak| peak.at.abs_diff(at));
        let first = nearest.and_then(|peak| peak.tasks.first());
        let task = first.map(|task| (task.pid, task.comm.clone(), self.bytes(task.anon)));
        Some(Victim { at, task })
    }

    /// The smallest limit in bytes from which on a run takes no more than this part longer, and nobody is killed.
    pub fn smallest(&self, slower: f64) -> u64 {
        /// Between limits that are looked at first.
        const STEPS: usize = 24;
        /// Halvings of the step that is left.
        const HALVINGS: usize = 4;
        let is_slow = |limit| self.judge(limit).slowdown.is_some_and(|part| part > slower);
        let limits = self.between(STEPS);
        let Some(last) = limits.iter().rposition(|&limit| is_slow(limit)) else {
            return self.lives_from();
        };
        let (mut slow, mut fast) =
            (limits[last], *limits.get(last + 1).unwrap_or(&self.fits_from()));
        for _ in 0..HALVINGS {
            let middle = slow.midpoint(fast);
            *(if is_slow(middle) { &mut slow } else { &mut fast }) = middle;
        }
        fast
    }

    /// Limits of whole pages in equal proportions from where it lives to where it fits, both included if they differ.
    pub fn between(&self, steps: usize) -> Vec<u64> {
        let (from, to) = (self.lives_from().max(1) as f64, self.fits_from() as f64);
        let limit = |n: usize| from * (to / from).powf(n as f64 / steps as f64);
        let page = page_size(self.recording);
        let up = |bytes: f64| (bytes as u64).div_ceil(page).saturating_mul(page);
        let mut limits: Vec<_> = (0..=steps).map(|n| up(limit(n))).collect();
        limits.dedup();
        limits
    }

    /// How the kernel that is asked reclaims; an ideal LRU is not one of its ways.
    pub fn lru(&self) -> Lru {
        match self.what_if.kernel {
            Kernel::Classic => Lru::Classic,
            Kernel::Mglru => Lru::MultiGen,
            Kernel::Host | Kernel::Lru => self.recording.header.lru,
        }
    }

    /// Whether there was page cache, and nothing is known of its use.
    pub fn is_blind(&self) -> bool {
        !self.knows_use && self.peaks().usage > self.lives_from()
    }

    fn read_ns_per_page(&self) -> u64 {
        self.known_read_ns().unwrap_or(READ_NS_PER_PAGE)
    }

    /// As far as the recording knows.
    pub(super) fn known_read_ns(&self) -> Option<u64> {
        self.recording.end.as_ref()?.read_ns_per_page
    }

    /// Seconds that it takes to read so many bytes again.
    pub fn seconds_to_read(&self, bytes: u64) -> f64 {
        bytes as f64 / page_size(self.recording) as f64 * self.read_ns_per_page() as f64 / 1e9
    }

    /// Pages in bytes.
    pub fn bytes(&self, pages: u64) -> u64 {
        pages.saturating_mul(page_size(self.recording))
    }

    /// Processes that look at their limit, with why that is thought.
    pub fn followers(&self) -> Vec<String> {
        // A pid is whatever it ran last at the time: it may run something else later, or be another process.
        let (mut comms, mut found) = (HashMap::new(), BTreeSet::new());
        for event in &self.recording.tasks {
            match &event.kind {
                TaskEventKind::Exec { comm } => drop(comms.insert(event.pid, comm.as_str())),
                TaskEventKind::FollowsLimit { why } => {
                    let comm = comms.get(&event.pid).copied().unwrap_or("a task");
                    found.insert(format!("{comm} ({why})"));
                }
                TaskEventKind::Born { .. } | TaskEventKind::Died => {}
            }
        }
        found.into_iter().collect()
    }
}

/// Bytes of a page of the recording.
pub fn page_size(recording: &Recording) -> u64 {
    u64::from(recording.header.page_size).max(1)
}

#[cfg(test)]
mod tests;
