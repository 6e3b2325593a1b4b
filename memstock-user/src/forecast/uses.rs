//! The sampled accesses of a recording as events for whoever simulates a cache: first use, use, end, and how much memory
//! is left beside it. Decides what an access means; pages throughout.
//!
//! What is mapped is touched without being seen. From the moment when it is mapped until it leaves the page cache it is
//! taken to be in constant use, as memory that is needed for speed, but not for life.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use memstock_common::record::BLOCK_PAGES;

use super::timeline::Timeline;
use crate::recording::{Access, AccessKind, Recording};

/// Within this time of being read from its device, a page is used for what it was read for: it was read ahead.
const READ_AHEAD: Duration = Duration::from_millis(250);

/// What happened at one time. There are millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// In which part of the run.
    pub part: u16,
    /// What.
    pub what: What,
}

const _: () = assert!(size_of::<Event>() == 16);

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// From now on other memory takes this; an index into [`Uses::taken`].
    Taken(u32),
    /// A page enters the cache, where it was not before; it stands for so many.
    Enter(Use),
    /// A page that has just entered is used for what it entered for.
    First(Use),
    /// A page is used that was in the cache.
    Again(Use),
    /// A page leaves the cache, or is counted under [`Taken::mapped`] from now on.
    Leave(u32),
}

/// Use of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The page; an index into [`Uses::file_of`].
    pub page: u32,
    /// How many it stands for.
    pub weight: u32,
}

/// What the cache has to leave room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Since when.
    pub from: Duration,
    /// What could not be reclaimed.
    pub needed: u64,
    /// Page cache that is mapped.
    pub mapped: u64,
}

impl Taken {
    /// Both.
    pub fn all(self) -> u64 {
        self.needed.saturating_add(self.mapped)
    }
}

/// All that happened to the cache.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// In the order of time.
    pub events: Vec<Event>,
    /// What was taken when.
    pub taken: Vec<Taken>,
    /// Of each page, the file; an index into [`Recording::files`].
    pub file_of: Vec<u32>,
    /// Pages that were used, but brought in by somebody else, who pays for them.
    pub others: u64,
    /// How far ahead files were read: of one file, the most pages that entered between a page and its first use.
    pub ahead: u64,
}

impl Uses {
    /// Of a recording whose usage was `timeline`.
    pub fn of(recording: &Recording, timeline: &Timeline) -> Self {
        let added = recording.accesses.iter().filter(|access| access.kind == AccessKind::Added);
        let mut reading = Reading {
            timeline,
            // A cgroup that is new has no cache but what it brings in.
            is_new: !recording.header.command.is_empty(),
            added: added.map(|access| access.file).collect(),
            uses: Self::default(),
            pages: HashMap::new(),
            states: Vec::new(),
            last_read: HashMap::new(),
            entered: HashMap::new(),
            now: Taken::default(),
        };
        let mut steps = timeline.steps.iter().peekable();
        for access in &recording.accesses {
            while let Some(step) = steps.next_if(|step| step.from <= access.at) {
                reading.needed(step.from, step.needed);
            }
            reading.access(access);
        }
        for step in steps {
            reading.needed(step.from, step.needed);
        }
        reading.uses
    }
}

/// What is known of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Not in the cache, as far as it is known.
    #[default]
    Absent,
    /// In it, but somebody else's.
    Others,
    /// It entered then, as so many pages of its file had, and was not used yet.
    Entered(Duration, u64),
    /// In it.
    Cached,
    /// In it and mapped, standing for so many.
    Mapped(u32),
}

struct Reading<'a> {
    timeline: &'a Timeline,
    is_new: bool,
    /// Files that it brought in: a page of them that never came is behind their end, to which a call may ask to read.
    added: HashSet<u32>,
    uses: Uses,
    pages: HashMap<(u32, u64), u32>,
    /// By page.
    states: Vec<State>,
    /// By file, the page that was read last.
    last_read: HashMap<u32, u64>,
    /// By file, pages that entered so far.
    entered: HashMap<u32, u64>,
    now: Taken,
}

impl Reading<'_> {
    fn needed(&mut self, at: Duration, needed: u64) {
        self.now.needed = needed;
        self.take(at);
    }

    fn take(&mut self, at: Duration) {
        self.now.from = at;
        let index = u32::try_from(self.uses.taken.len()).unwrap_or(u32::MAX);
        self.uses.taken.push(self.now);
        self.push(at, What::Taken(index));
    }

    fn push(&mut self, at: Duration, what: What) {
        self.uses.events.push(Event { part: self.timeline.part(at), what });
    }

    fn access(&mut self, access: &Access) {
        // An access lies in one block; a file that says otherwise is not believed, nor is room made for it.
        let run = u64::from(access.pages).min(BLOCK_PAGES);
        let (first, end) = (access.index, access.index.saturating_add(run));
        let mut pages = first..end;
        if access.kind == AccessKind::Read {
            // As in `filemap_read`: who reads a page in several calls uses it once.
            let last = self.last_read.insert(access.file, end.saturating_sub(1));
            if last == Some(first) {
                pages.next();
            }
        }
        let mapped = self.now.mapped;
        for index in pages {
            self.page(access, index);
        }
        if mapped != self.now.mapped {
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
                self.unmap(before);
                self.push(at, What::Enter(used));
                let entered = self.entered.entry(access.file).or_default();
                *entered += u64::from(used.weight);
                State::Entered(at, *entered)
            }
            (AccessKind::Removed, _) => {
                self.unmap(before);
                self.push(at, What::Leave(page));
                State::Absent
            }
            (_, State::Others | State::Mapped(_)) => before,
            (_, State::Absent) if self.is_new => {
                if !self.added.contains(&access.file) {
                    self.uses.others += u64::from(used.weight);
                }
                State::Others
            }
            (kind, State::Absent) => {
                self.push(at, What::Enter(used));
                self.in_use(kind, at, used)
            }
            (kind, State::Entered(then, entered)) if at.saturating_sub(then) < READ_AHEAD => {
                let since = self.entered.get(&access.file).map_or(0, |now| now - entered);
                self.uses.ahead = self.uses.ahead.max(since);
                self.push(at, What::First(used));
                self.in_use(kind, at, used)
            }
            (kind, State::Entered(..) | State::Cached) => {
                self.push(at, What::Again(used));
                self.in_use(kind, at, used)
            }
        };
        self.states[page as usize] = after;
    }

    fn in_use(&mut self, kind: AccessKind, at: Duration, used: Use) -> State {
        if kind != AccessKind::Mapped {
            return State::Cached;
        }
        self.push(at, What::Leave(used.page));
        self.now.mapped += u64::from(used.weight);
        State::Mapped(used.weight)
    }

    fn unmap(&mut self, state: State) {
        if let State::Mapped(weight) = state {
            self.now.mapped -= u64::from(weight);
        }
    }
}

#[cfg(test)]
mod tests;
