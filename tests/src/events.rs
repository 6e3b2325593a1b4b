//! `memstock events` as a test reads it: followers in the background, late readers, and the rule that no reading may
//! have a gap or a repeat.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::poll::{SOON, try_poll_until};
use crate::process::{Process, memstock};

/// A record of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Value);

impl Record {
    /// Its sequence number.
    pub fn seq(&self) -> u64 {
        self.0["seq"].as_u64().unwrap_or_default()
    }

    /// Its time, in ns since boot.
    pub fn time_ns(&self) -> u64 {
        self.0["time_ns"].as_u64().unwrap_or_default()
    }

    /// What happened.
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    /// The value of a string field; empty if it is not a string.
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// The value of a number field; 0 if it is not a number.
    pub fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_default()
    }

    /// The path in a cgroup field; empty if it has none.
    pub fn path(&self, field: &str) -> &str {
        self.0[field]["path"].as_str().unwrap_or_default()
    }
}

/// Parses the complete lines of `memstock events --json`, and checks that no number is missing or repeated.
///
/// # Errors
/// When a line is not a record, or does not follow the one before.
pub fn parse(text: &str) -> Result<Vec<Record>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let record = |line: &str| serde_json::from_str(line).with_context(|| line.to_owned());
    let records: Vec<_> =
        whole.lines().map(|line| record(line).map(Record)).collect::<Result<_>>()?;
    for pair in records.windows(2) {
        ensure!(pair[1].seq() == pair[0].seq() + 1, "a gap or a repeat: {pair:?}");
    }
    ensure!(records.iter().all(|record| !record.kind().is_empty()), "no kind: {records:?}");
    Ok(records)
}

/// The records in the stream now.
///
/// # Errors
/// When `memstock events` fails, or as [`parse`].
pub fn read() -> Result<Vec<Record>> {
    let finished = memstock(["events", "--json"])?.finish(SOON)?;
    ensure!(finished.code() == 0 && finished.stderr.is_empty(), "{finished:?}");
    parse(&finished.stdout)
}

/// A `memstock events --json --follow` in the background.
#[derive(Debug)]
pub struct Follower(Process);

impl Follower {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> Result<Self> {
        Ok(Self(memstock(["events", "--json", "--follow"])?.start()?))
    }

    /// The records that it has printed so far.
    ///
    /// # Errors
    /// As [`parse`].
    pub fn records(&self) -> Result<Vec<Record>> {
        parse(&self.0.stdout()?)
    }

    /// Waits until `enough` accepts the records printed so far.
    ///
    /// # Errors
    /// When it does not in time, or the follower ends first.
    pub fn wait_for(
        &mut self,
        what: &str,
        mut enough: impl FnMut(&[Record]) -> bool,
    ) -> Result<Vec<Record>> {
        try_poll_until(SOON, what, || {
            let ended = self.0.ended()?;
            let records = self.records()?;
            let found = enough(&records);
            ensure!(found || ended.is_none(), "it ended before {what}: {records:?}");
            Ok(found.then_some(records))
        })
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    /// Waits until it ends, which must be a success. Returns all records that it printed.
    ///
    /// # Errors
    /// When it does not end in time, or fails.
    pub fn end(mut self) -> Result<Vec<Record>> {
        let finished = self.0.wait(SOON)?;
        ensure!(finished.code() == 0 && finished.stderr.is_empty(), "{finished:?}");
        parse(&finished.stdout)
    }
}
