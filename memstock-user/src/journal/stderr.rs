//! Decides which events go to standard error: those that an operator acts on. Kinds that come by the thousand are
//! limited, so that the rest can be read. The stream has all of them.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use memstock_common::Loss;

use super::kind::KINDS;
use super::record::{Cgroup, Entry, Kind, Record, Why};

/// The most lines of one kind about one cgroup in a second.
const BURST: u32 = 3;
const SECOND_NS: u64 = 1_000_000_000;

/// Recent lines, by kind and cgroup id.
#[derive(Debug, Default)]
pub(super) struct Stderr(BTreeMap<(usize, u64), Lately>);

#[derive(Clone, Copy, Debug)]
struct Lately {
    began_ns: u64,
    printed: u32,
    withheld: u64,
}

impl Stderr {
    /// Prints the entry if it is for standard error.
    pub(super) fn tell(&mut self, entry: &Entry) {
        if let Some(line) = self.line(entry) {
            say(&line);
        }
    }

    /// Prints how many events were withheld in seconds that are over by now.
    pub(super) fn tell_withheld(&mut self, now_ns: u64) {
        say(&self.withheld(now_ns));
    }

    fn line(&mut self, entry: &Entry) -> Option<String> {
        if !is_wanted(&entry.record) {
            return None;
        }
        let Some(cgroup) = comes_by_the_thousand(&entry.record) else {
            return Some(format!("{entry}\n"));
        };
        let before = self.withheld(entry.time_ns);
        let new = Lately { began_ns: entry.time_ns, printed: 0, withheld: 0 };
        let kind = Kind::from(&entry.record) as usize;
        let lately = self.0.entry((kind, cgroup)).or_insert(new);
        if lately.printed == BURST {
            lately.withheld += 1;
            return Some(before).filter(|before| !before.is_empty());
        }
        lately.printed += 1;
        Some(format!("{before}{entry}\n"))
    }

    fn withheld(&mut self, now_ns: u64) -> String {
        let mut sums = BTreeMap::<usize, u64>::new();
        self.0.retain(|&(kind, _), lately| {
            let is_over = now_ns.saturating_sub(lately.began_ns) >= SECOND_NS;
            if is_over && lately.withheld > 0 {
                *sums.entry(kind).or_default() += lately.withheld;
            }
            !is_over
        });
        let line = |(kind, more): (usize, u64)| {
            format!("event: withheld kind={} number={more}\n", KINDS[kind])
        };
        sums.into_iter().map(line).collect()
    }
}

fn say(text: &str) {
    // If standard error is gone, nobody is left to read it.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The cgroup of an event of a kind that may come each millisecond at a limit.
fn comes_by_the_thousand(record: &Record) -> Option<u64> {
    match record {
        Record::LimitNear(limit) | Record::LimitHit(limit) => Some(limit.ancestor.id),
        Record::Reclaim { cgroup, .. } => Some(cgroup.id),
        Record::WouldEnforce { ancestor, .. } => Some(ancestor.id),
        Record::Drain { why: Why::Asked | Why::CpuDead, .. } => None,
        Record::Drain { cgroup, .. } => Some(cgroup.as_ref().map_or(0, |Cgroup { id, .. }| *id)),
        _ => None,
    }
}

fn is_wanted(record: &Record) -> bool {
    match record {
        Record::LimitNear(_)
        | Record::LimitHit(_)
        | Record::Drain { .. }
        | Record::Reclaim { .. }
        | Record::OomKill { .. }
        | Record::NoVictim { .. }
        | Record::CacheOverLimit { .. }
        | Record::WouldEnforce { .. }
        | Record::EngineAdopted { .. }
        | Record::PartFailed { .. }
        | Record::PartRecovered { .. }
        | Record::ConfigChanged { .. }
        | Record::ConfigReloaded { .. }
        | Record::ConfigRefused { .. }
        | Record::CpuDead { .. }
        | Record::CpuOnline { .. } => true,
        // Lines are missing on standard error then, too.
        Record::Lost { counter, .. } => counter == Loss::EventsLost.stat().name,
        Record::CgroupAdded { .. }
        | Record::CgroupDying { .. }
        | Record::CgroupRemoved { .. }
        | Record::Healed { .. }
        | Record::Ended => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::every_kind;

    fn entry(ms: u64, record: &Record) -> Entry {
        let time_ns = 1_000_000_000_000 + ms * 1_000_000;
        Entry { seq: ms, time_ns, time: String::new(), record: record.clone() }
    }

    #[test]
    fn of_what_comes_by_the_thousand_the_first_of_each_second_are_told() {
        let (mut stderr, all) = (Stderr::default(), every_kind());
        let (near, hit) = (&all[0], &all[1]);
        let lines = |stderr: &mut Stderr, of: std::ops::Range<u64>, record| {
            of.filter_map(|ms| stderr.line(&entry(ms, record))).collect::<Vec<_>>()
        };
        assert_eq!(lines(&mut stderr, 0..700, near).len(), 3);
        assert_eq!(lines(&mut stderr, 0..5, hit).len(), 3, "each kind has its own");
        let next = lines(&mut stderr, 1000..2000, near);
        assert_eq!(next.len(), 3);
        let withheld = "event: withheld kind=limit-near number=697\n\
                        event: withheld kind=limit-hit number=2\nevent: limit-near ";
        assert!(next[0].starts_with(withheld), "{next:?}");
        assert!(lines(&mut stderr, 1500..1501, hit)[0].starts_with("event: limit-hit "));
        let late = lines(&mut stderr, 1501..2001, hit);
        // Told with an event that is itself withheld.
        assert_eq!(late.last().unwrap(), "event: withheld kind=limit-near number=997\n");
        assert_eq!(stderr.withheld(u64::MAX), "event: withheld kind=limit-hit number=498\n");
        assert_eq!(stderr.withheld(u64::MAX), "");
    }

    #[test]
    fn what_is_done_to_somebody_is_always_told() {
        let mut stderr = Stderr::default();
        for record in every_kind().iter().filter(|record| comes_by_the_thousand(record).is_none()) {
            let printed = (0..100).filter_map(|ms| stderr.line(&entry(ms, record))).count();
            assert_eq!(printed, if is_wanted(record) { 100 } else { 0 }, "{record}");
        }
    }
}
