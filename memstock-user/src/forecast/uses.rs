//! Turns the sampled accesses of a recording into events for a cache simulation: entry, first use, further use, exit,
//! and how much memory is left beside it. Decides what an access means. All figures are in pages.
//!
//! Touches of mapped pages are not seen. From its mapping until it leaves the page cache, a page is taken to be in
//! constant use (`mapped`): memory that is needed for speed, but not for survival.

mod event;
mod order;

pub use event::{Event, Use, What};

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use memstock_common::record::BLOCK_PAGES;

use self::order::Order;
use super::timeline::{Step, Timeline};
use super::writes::Writes;
use crate::recording::{Access, AccessKind, Recording};

/// A use within this time of the read from the device is the one that the page was read ahead for.
const READ_AHEAD: Duration = Duration::from_millis(250);

/// Memory for which the cache has to leave room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The time from which this holds.
    pub from: Duration,
    /// What could not be reclaimed.
    pub needed: u64,
    /// What was used and not needed: page cache, and slab that could be reclaimed.
    pub cached: u64,
    /// Page cache that is mapped, and is not text, by the sample.
    pub mapped: u64,
    /// Pages of programs and libraries that faulted, by the sample: without them a program does not get on.
    pub text: u64,
}

impl Taken {
    /// The text: a sample may stand for more than there is.
    pub fn text(self) -> u64 {
        self.text.min(self.cached)
    }

    /// All that is mapped, text among it.
    pub fn in_use(self) -> u64 {
        self.mapped.saturating_add(self.text).min(self.cached)
    }

    /// All that the cache has to leave room for.
    pub fn all(self) -> u64 {
        self.needed.saturating_add(self.in_use())
    }
}

/// Everything that happened to the cache.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// The events in the order of time.
    pub events: Vec<Event>,
    /// The memory that was taken, over time.
    pub taken: Vec<Taken>,
    /// The file of each page; an index into [`Recording::files`].
    pub file_of: Vec<u32>,
    /// Pages that were used here but brought in by, and charged to, somebody else.
    pub others: u64,
    /// How far ahead files were read: the pages of one file that entered between a page's entry and its first use; more
    /// for one page in a hundred only.
    pub ahead: u64,
    /// Pages that were read from the device for their first use.
    pub read: u64,
    /// The files among them that were read from the beginning to the end whenever they were read, so that the kernel reads
    /// ahead, and are long enough for that.
    pub in_order: HashSet<u32>,
    /// What became dirty.
    pub writes: Writes,
    /// Pages that were written, and are cached at the end without having been mapped since.
    pub written: u64,
}

impl Uses {
    /// What happened, page by page, and in which part of the run.
    pub fn each(&self) -> impl Iterator<Item = (u16, What)> {
        self.events.iter().flat_map(|event| event.pages())
    }

    /// Reads the accesses of a recording; `timeline` is its need over time.
    pub fn of(recording: &Recording, timeline: &Timeline) -> Self {
        let added = recording.accesses.iter().filter(|access| access.kind == AccessKind::Added);
        let mut reading = Reading {
            recording,
            timeline,
            // A new cgroup has no cache but what it brings in.
            is_new: !recording.header.command.is_empty(),
            added: added.map(|access| access.file).collect(),
            uses: Self::default(),
            pages: HashMap::new(),
            states: Vec::new(),
            last_read: HashMap::new(),
            orders: HashMap::new(),
            entered: HashMap::new(),
            unused: HashMap::new(),
            ahead: Vec::new(),
            now: Taken::default(),
        };
        let mut steps = timeline.steps.iter().peekable();
        for access in &recording.accesses {
            while let Some(step) = steps.next_if(|step| step.from <= access.at) {
                reading.step(step);
            }
            reading.access(access);
        }
        for step in steps {
            reading.step(step);
        }
        reading.uses.ahead = nearly_all(reading.ahead);
        let orders = reading.orders.into_iter();
        reading.uses.in_order =
            orders.filter(|(_, order)| order.is_kept()).map(|(file, _)| file).collect();
        reading.uses.writes = Writes::of(&recording.accesses);
        reading.uses
    }
}

/// What is known of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Not known to be in the cache.
    #[default]
    Absent,
    /// In the cache, but charged to somebody else.
    Others,
    /// Not used since it entered: the time, and how many pages of its file had entered by then.
    Entered(Duration, u64),
    /// In the cache.
    Cached,
    /// In the cache, and was written; stands for so many pages.
    Written(u32),
    /// In the cache and mapped; stands for so many pages.
    Mapped(u32),
    /// The same of a program or a library.
    Text(u32),
}

struct Reading<'a> {
    recording: &'a Recording,
    timeline: &'a Timeline,
    is_new: bool,
    /// Files of which the cgroup brought in pages. A page of them that never entered is behind their end, where a call
    /// may ask to read.
    added: HashSet<u32>,
    uses: Uses,
    pages: HashMap<(u32, u64), u32>,
    /// The state of each page.
    states: Vec<State>,
    /// The page read last, by file.
    last_read: HashMap<u32, u64>,
    /// In which order each file was read.
    orders: HashMap<u32, Order>,
    /// Pages that have entered so far, by file.
    entered: HashMap<u32, u64>,
    /// Pages that have entered and may not have been used, by file.
    unused: HashMap<u32, Vec<u32>>,
    /// How far ahead of its use each page was read.
    ahead: Vec<u64>,
    now: Taken,
}

impl Reading<'_> {
    fn step(&mut self, step: &Step) {
        self.now.needed = step.needed;
        self.now.cached = step.cached;
        self.take(step.from);
    }

    fn take(&mut self, at: Duration) {
        self.now.from = at;
        let index = u32::try_from(self.uses.taken.len()).unwrap_or(u32::MAX);
        self.uses.taken.push(self.now);
        self.push(at, What::Taken(index));
    }

    fn push(&mut self, at: Duration, what: What) {
        let part = self.timeline.part(at);
        if !self.uses.events.last_mut().is_some_and(|last| last.continues_with(part, what)) {
            self.uses.events.push(Event { part, more: 0, what });
        }
    }

    fn access(&mut self, access: &Access) {
        // An access lies within one block; a longer one, from a corrupt file, is cut, so that it takes no memory.
        let run = u64::from(access.pages).min(BLOCK_PAGES);
        let (first, end) = (access.index, access.index.saturating_add(run));
        let mut pages = first..end;
        if access.kind == AccessKind::Read {
            // As in `filemap_read`: reading a page in several calls uses it once.
            let last = self.last_read.insert(access.file, end.saturating_sub(1));
            self.orders.entry(access.file).or_default().note(last, access);
            if last == Some(first) {
                pages.next();
            }
        }
        let before = self.now;
        for index in pages {
            self.page(access, index);
        }
        if access.kind == AccessKind::Mapped && !self.is_program(access.file) {
            self.map_unused(access);
        }
        if before != self.now {
            self.take(access.at);
        }
    }

    fn page(&mut self, access: &Access, index: u64) {
        let new = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        let page = *self.pages.entry((access.file, index)).or_insert(new);
        if page == new {
            self.states.push(State::Absent);
            self.uses.file_of.push(access.file);
        }
        let Access { at, one_in, .. } = *access;
        let used = Use { page, weight: one_in.max(1) };
        let before = self.states[page as usize];
        let after = match (access.kind, before) {
            (AccessKind::Added, _) => {
                self.forget(before);
                self.push(at, What::Enter(used));
                let entered = self.entered.entry(access.file).or_default();
                *entered += u64::from(used.weight);
                self.unused.entry(access.file).or_default().push(page);
                State::Entered(at, *entered)
            }
            (AccessKind::Removed, _) => {
                self.forget(before);
                self.push(at, What::Leave(page));
                State::Absent
            }
            (_, State::Others | State::Mapped(_) | State::Text(_)) => before,
            (AccessKind::Dirtied, State::Written(_)) => {
                self.push(at, What::Dirty(used));
                before
            }
            (_, State::Absent) if self.is_new => {
                if access.kind == AccessKind::Dirtied || !self.added.contains(&access.file) {
                    self.uses.others += u64::from(used.weight);
                }
                State::Others
            }
            (kind, State::Absent) => {
                self.push(at, What::Enter(used));
                self.in_use(kind, access, used)
            }
            (AccessKind::Dirtied, State::Entered(..) | State::Cached) => self.dirtied(at, used),
            (kind, State::Entered(then, entered)) if at.saturating_sub(then) < READ_AHEAD => {
                let since = self.entered.get(&access.file).map_or(0, |now| now - entered);
                self.ahead.push(since);
                self.push(at, What::First(used));
                self.uses.read += u64::from(used.weight);
                self.orders.entry(access.file).or_default().first += u64::from(used.weight);
                self.in_use(kind, access, used)
            }
            (kind, State::Entered(..) | State::Cached | State::Written(_)) => {
                self.push(at, What::Again(used));
                if kind == AccessKind::Read && matches!(before, State::Written(_)) {
                    before
                } else {
                    self.forget(before);
                    self.in_use(kind, access, used)
                }
            }
        };
        self.states[page as usize] = after;
    }

    /// A fault on a page that has to be read reports that page, and maps its whole folio (since Linux 6.18). So of a
    /// file that is mapped, all that entered and was not used since counts as mapped.
    fn map_unused(&mut self, access: &Access) {
        for page in self.unused.remove(&access.file).unwrap_or_default() {
            if let State::Entered(..) = self.states[page as usize] {
                let used = Use { page, weight: access.one_in.max(1) };
                self.states[page as usize] = self.in_use(AccessKind::Mapped, access, used);
            }
        }
    }

    fn is_program(&self, file: u32) -> bool {
        self.recording.files.get(file as usize).is_some_and(|file| file.is_program)
    }

    fn in_use(&mut self, kind: AccessKind, access: &Access, used: Use) -> State {
        match kind {
            AccessKind::Mapped => {
                self.push(access.at, What::Leave(used.page));
                if self.is_program(access.file) {
                    self.now.text += u64::from(used.weight);
                    State::Text(used.weight)
                } else {
                    self.now.mapped += u64::from(used.weight);
                    State::Mapped(used.weight)
                }
            }
            AccessKind::Dirtied => self.dirtied(access.at, used),
            AccessKind::Read | AccessKind::Added | AccessKind::Removed => State::Cached,
        }
    }

    fn dirtied(&mut self, at: Duration, used: Use) -> State {
        self.push(at, What::Dirty(used));
        self.uses.written += u64::from(used.weight);
        State::Written(used.weight)
    }

    /// What leaves the cache is no longer counted.
    fn forget(&mut self, state: State) {
        match state {
            State::Mapped(weight) => self.now.mapped -= u64::from(weight),
            State::Text(weight) => self.now.text -= u64::from(weight),
            State::Written(weight) => self.uses.written -= u64::from(weight),
            State::Absent | State::Others | State::Entered(..) | State::Cached => {}
        }
    }
}

/// What 99 % of the pages do not exceed. The use of a page can be missed: `filemap_get_pages` reports none of the pages
/// that it found if it has to wait for the last, and then the next use, much later, seems to be the first.
fn nearly_all(mut ahead: Vec<u64>) -> u64 {
    ahead.sort_unstable();
    let last = (ahead.len() * 99).div_ceil(100).saturating_sub(1);
    ahead.get(last).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
