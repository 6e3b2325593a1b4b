//! Owns the report of a reload: a record for each change, and a summary.

use anyhow::Result;
use memstock_common::{NO_LIMIT, Resource};

use crate::enforce::setting::Limits;
use crate::host::cgroup::Cgroup;
use crate::host::page_size;
use crate::journal::record::{self, Outcome, named};
use crate::journal::{Journal, Record};

/// Publishes changes and counts them.
pub struct Report<'a> {
    journal: &'a Journal,
    file: String,
    done: u64,
    refused: u64,
    needs_restart: u64,
}

impl<'a> Report<'a> {
    /// For a reload of `file`.
    pub fn new(journal: &'a Journal, file: String) -> Self {
        Self { journal, file, done: 0, refused: 0, needs_restart: 0 }
    }

    /// Publishes a change.
    pub fn change(
        &mut self,
        cgroup: Option<record::Cgroup>,
        key: &str,
        from: String,
        to: String,
        outcome: Outcome,
        note: Option<String>,
    ) {
        *match outcome {
            Outcome::Done => &mut self.done,
            Outcome::Refused => &mut self.refused,
            Outcome::NeedsRestart => &mut self.needs_restart,
        } += 1;
        let key = key.to_owned();
        self.journal.publish(Record::ConfigChanged { cgroup, key, from, to, outcome, note });
    }

    /// Publishes that a cgroup is named, or no longer.
    pub fn named(&mut self, cgroup: &Cgroup, is_now: bool, tried: Result<Option<&str>>) {
        let (from, to) = if is_now { ("absent", "named") } else { ("named", "absent") };
        let (outcome, note) = match tried {
            Ok(note) => (Outcome::Done, note.map(str::to_owned)),
            Err(error) => (Outcome::Refused, Some(format!("{error:#}"))),
        };
        self.change(Some(named(cgroup)), "cgroup", from.into(), to.into(), outcome, note);
    }

    /// Publishes a change of limits, given those that are in force `now`.
    pub fn limits(
        &mut self,
        cgroup: &Cgroup,
        from: Limits,
        to: Limits,
        now: Option<Limits>,
        tried: Result<()>,
    ) {
        let why = tried.err().map(|error| format!("{error:#}"));
        for resource in Resource::ALL {
            let [from, to] = [from, to].map(|limits| limits.get(resource));
            if from == to {
                continue;
            }
            let is_done = now.is_some_and(|now| now.get(resource) == to);
            let outcome = if is_done { Outcome::Done } else { Outcome::Refused };
            let note = why.clone().filter(|_| !is_done);
            self.change(
                Some(named(cgroup)),
                resource.name(),
                bytes(from),
                bytes(to),
                outcome,
                note,
            );
        }
    }

    /// Publishes the summary.
    pub fn sum_up(self) {
        let Self { journal, file, done, refused, needs_restart } = self;
        journal.publish(Record::ConfigReloaded { file, done, refused, needs_restart });
    }
}

/// A limit in pages, as it is written in the file.
fn bytes(nr_pages: u64) -> String {
    match nr_pages {
        NO_LIMIT => "max".to_owned(),
        nr_pages => (nr_pages * page_size()).to_string(),
    }
}
