//! Judges one recording at any limit: the verdict, what is read again and how much slower that is, and who dies. Uses
//! the figures of the modules beside it; renders nothing.

use std::time::Duration;

use super::curve::Curve;
use super::timeline::{PARTS, Timeline};
use super::uses::Uses;
use super::verdict::{Peaks, Verdict};
use super::writes::Writes;
use super::{high, lru, mapped};
use crate::recording::{AccessKind, Lru, Recording};

/// A run that takes longer by this part is *slow*.
pub const SLOW: f64 = 0.05;
/// How much longer a program takes at least that has no room for its own text: up to for ever.
const WITHOUT_TEXT: f64 = 1.0;
/// Pages that the kernel charges at once, and keeps on the CPU (`MEMCG_CHARGE_BATCH`).
const CHARGED_AHEAD: u64 = 64;
/// At most this many of the files that are read again most are named, each only if it is this part of the total.
const FILES: usize = 3;
const WORTH_NAMING: f64 = 0.05;

/// The reclaim policy to simulate.
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
    /// The one of the recorded kernel.
    #[default]
    Host,
    /// Active and inactive lists.
    Classic,
    /// Generations (MGLRU).
    Mglru,
    /// An ideal LRU: pages are evicted strictly in the order of their last use.
    Lru,
}

impl Kernel {
    /// All of them.
    pub const VARIANTS: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;
}

/// What should differ from the recorded run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WhatIf {
    /// Bytes of swap that the run may use.
    pub swap: u64,
    /// Whether the limits are `memory.high`, at which nobody is killed.
    pub is_high: bool,
    /// Which policy reclaims.
    pub kernel: Kernel,
}

/// The process that would be killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The time of the kill.
    pub at: Duration,
    /// Its process id, name, and anonymous memory in bytes; `None` if no process was recorded.
    pub task: Option<(u32, String, u64)>,
}

/// What a limit would do.
#[derive(Clone, Debug)]
pub struct Row {
    /// The limit in bytes.
    pub limit: u64,
    /// The verdict: never [`Verdict::Near`].
    pub verdict: Verdict,
    /// Whether this limit is so near to what is needed that runs at it differ: the run may also survive.
    pub is_near: bool,
    /// Bytes read again; `None` if the run dies before, or if reads were not recorded.
    pub reread: Option<u64>,
    /// These bytes, by parts of the run.
    pub reread_by_time: Vec<u64>,
    /// By what part the run takes longer; `None` as above.
    pub slowdown: Option<f64>,
    /// The files that are read again most: their numbers in the recording, and bytes.
    pub files: Vec<(u32, u64)>,
    /// Bytes of mapped files for which there is no room.
    pub unmapped: u64,
    /// Bytes of dirty cache whose writeback is waited for.
    pub dirty: u64,
    /// How long tasks are throttled at `memory.high`.
    pub throttled: Duration,
    /// Who is killed first.
    pub victim: Option<Victim>,
}

/// A recording, prepared for judging limits.
#[derive(Debug)]
pub struct Rehearsal<'a> {
    /// The recording.
    pub recording: &'a Recording,
    /// What should differ from it.
    pub what_if: WhatIf,
    /// What was needed when.
    pub timeline: Timeline,
    /// How the page cache was used.
    pub(super) uses: Uses,
    /// The curve of an ideal LRU; only if that is asked for.
    curve: Option<Curve>,
    /// Whether uses of the page cache were recorded: older kernels only report what enters and leaves it.
    pub(super) knows_use: bool,
}

impl<'a> Rehearsal<'a> {
    /// Looks at each access once, which takes a while.
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
        let peaks = Peaks::of(self.bytes(usage), self.bytes(needed));
        if !self.knows_use {
            return peaks;
        }
        // What was written through a mapping only the walks have seen.
        let Writes { all, at_once } = self.uses.writes;
        let unseen = self.timeline.most_dirty().saturating_sub(all);
        Peaks { written: self.bytes(at_once.saturating_add(unseen)), ..peaks }
    }

    /// The smallest limit in bytes at which nothing is reclaimed.
    pub fn fits_from(&self) -> u64 {
        let ahead = self.bytes(CHARGED_AHEAD * u64::from(self.recording.header.cpus));
        let usage = self.peaks().usage.saturating_add(ahead);
        if self.what_if.is_high { usage } else { usage.max(self.lives_from()) }
    }

    /// The smallest limit in bytes at which nobody is killed, or with `memory.high`, throttled.
    pub fn lives_from(&self) -> u64 {
        let peaks = self.peaks();
        if self.what_if.is_high {
            return peaks.needed;
        }
        peaks.lives_from().saturating_add(self.killed_for())
    }

    /// Bytes of dirty cache for which the kernel kills rather than wait for writeback: with MGLRU (seen on Linux 6.12,
    /// 6.18 and 7.3). Only a fifth of what a cgroup may have should be dirty (`vm.dirty_ratio`), but `sort` was killed
    /// with three fifths more than it needs (`docs/rehearsal.md`).
    pub(super) fn killed_for(&self) -> u64 {
        if self.what_if.is_high || self.lru() != Lru::MultiGen {
            return 0;
        }
        let dirty = self.timeline.most_dirty().max(self.uses.writes.at_once);
        self.bytes(dirty).min(self.peaks().lives_from() / 2)
    }

    /// Judges a limit in bytes: how much slower the run is, what is read again, and who dies.
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
        // A run that took no time has no such part.
        let part = |extra: f64| Some(extra / end.as_secs_f64()).filter(|part| part.is_finite());
        if self.is_blind() {
            // The delay is at least the time that its tasks are throttled.
            let is_high = self.what_if.is_high;
            row.slowdown = part(row.throttled.as_secs_f64()).filter(|_| is_high);
            row.reread = None;
            return;
        }
        let mapped = mapped::rereads(&self.uses, limit, end, PARTS);
        row.unmapped = self.bytes(mapped::most_missing(&self.uses, limit));
        let lru::Rereads { by_time, by_file, in_time, as_before, written } = match &self.curve {
            Some(curve) => lru::Rereads::of_curve(curve.rereads(limit)),
            None => lru::simulate(&self.uses, self.lru(), limit),
        };
        let by_time: Vec<_> = mapped.iter().zip(&by_time).map(|(one, other)| one + other).collect();
        let pages = by_time.iter().sum::<f64>() as u64;
        row.reread = Some(self.bytes(pages));
        row.reread_by_time = by_time.iter().map(|&pages| self.bytes(pages as u64)).collect();
        row.files = self.largest(&by_file, pages);
        // The recorded run has written what is no longer dirty at its end. So no limit adds more than what still is.
        let unwritten = self.timeline.dirty_at_end();
        let anyway = self.uses.written.saturating_sub(unwritten);
        let written = written.saturating_sub(anyway).min(unwritten);
        row.dirty = row.dirty.max(self.bytes(written));
        // As long as the disk has nothing else to do for it, nobody waits for what is read in time.
        let read = self.recording.end.as_ref().and_then(|end| end.read_bytes).unwrap_or(0);
        let busy = self.seconds_to_read(read) + self.seconds_to_write(self.bytes(anyway));
        let idle = (end.as_secs_f64() - busy).max(0.0);
        let hidden = self.seconds_to_read(self.bytes(in_time as u64)).min(idle);
        let waited = self.seconds_to_read(self.bytes(pages)) + self.seconds_to_write(row.dirty);
        let computed = self.seconds_computed_while_read(&as_before);
        let extra = waited - hidden - computed + row.throttled.as_secs_f64();
        let text = mapped::lacks_text(&self.uses, limit).then_some(WITHOUT_TEXT);
        row.slowdown = part(extra).into_iter().chain(text).reduce(f64::max);
    }

    fn largest(&self, by_file: &[f64], all: u64) -> Vec<(u32, u64)> {
        let is_large = |pages: f64| pages >= 1.0 && pages >= WORTH_NAMING * all as f64;
        let files = (0..).zip(by_file).filter(|&(_, &pages)| is_large(pages));
        let mut files: Vec<_> =
            files.map(|(file, &pages)| (file, self.bytes(pages as u64))).collect();
        files.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        files.truncate(FILES);
        files
    }

    fn victim(&self, limit: u64) -> Option<Victim> {
        // Near what is needed, only the highest peak may be too much.
        let needed = limit.min(self.timeline.needed_peak().saturating_sub(1));
        let at = self.timeline.killed_at(needed)?;
        // Its processes may have ended while they were looked at.
        let known = self.recording.peaks.iter().filter(|peak| !peak.tasks.is_empty());
        let nearest = known.min_by_key(|peak| peak.at.abs_diff(at));
        let first = nearest.and_then(|peak| peak.tasks.first());
        let task = first.map(|task| (task.pid, task.comm.clone(), self.bytes(task.anon)));
        Some(Victim { at, task })
    }

    /// The smallest limit in bytes from which on a run takes at most this part longer, and nobody is killed.
    pub fn smallest(&self, slower: f64) -> u64 {
        /// Steps between the limits that are judged first.
        const STEPS: usize = 24;
        /// Bisections of the remaining step.
        const HALVINGS: usize = 4;
        let is_slow = |limit| {
            mapped::lacks_text(&self.uses, limit / page_size(self.recording))
                || self.judge(limit).slowdown.is_some_and(|part| part > slower)
        };
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

    /// Limits in whole pages, in equal proportions from `lives_from` to `fits_from`, both included if they differ.
    pub fn between(&self, steps: usize) -> Vec<u64> {
        let (from, to) = (self.lives_from().max(1) as f64, self.fits_from() as f64);
        let limit = |n: usize| from * (to / from).powf(n as f64 / steps as f64);
        let page = page_size(self.recording);
        let up = |bytes: f64| (bytes as u64).div_ceil(page).saturating_mul(page);
        let mut limits: Vec<_> = (0..=steps).map(|n| up(limit(n))).collect();
        limits.dedup();
        limits
    }

    /// The kernel policy to simulate; an ideal LRU is not among them.
    pub fn lru(&self) -> Lru {
        match self.what_if.kernel {
            Kernel::Classic => Lru::Classic,
            Kernel::Mglru => Lru::MultiGen,
            Kernel::Host | Kernel::Lru => self.recording.header.lru,
        }
    }

    /// Whether there was page cache whose use was not recorded.
    pub fn is_blind(&self) -> bool {
        !self.knows_use && self.peaks().usage > self.lives_from()
    }

    /// Converts pages to bytes.
    pub fn bytes(&self, pages: u64) -> u64 {
        pages.saturating_mul(page_size(self.recording))
    }
}

/// The page size of the recording, in bytes.
pub fn page_size(recording: &Recording) -> u64 {
    u64::from(recording.header.page_size).max(1)
}

mod time;

#[cfg(test)]
mod tests;
