//! The kinds of records by number and name, and how many of each were written: what metrics tell of the
//! stream. What a record contains is `record`'s.

use super::record::Record;

/// Every kind, named as in the field `kind`.
pub const KINDS: [&str; 22] = [
    "limit-near",
    "limit-hit",
    "drain",
    "reclaim",
    "oom-kill",
    "no-victim",
    "cache-over-limit",
    "would-enforce",
    "cpu-dead",
    "cpu-online",
    "cgroup-added",
    "cgroup-dying",
    "cgroup-removed",
    "healed",
    "lost",
    "engine-adopted",
    "part-failed",
    "part-recovered",
    "config-changed",
    "config-reloaded",
    "config-refused",
    "ended",
];

/// Which of [`KINDS`] it is.
const fn number(record: &Record) -> usize {
    match record {
        Record::LimitNear(_) => 0,
        Record::LimitHit(_) => 1,
        Record::Drain { .. } => 2,
        Record::Reclaim { .. } => 3,
        Record::OomKill { .. } => 4,
        Record::NoVictim { .. } => 5,
        Record::CacheOverLimit { .. } => 6,
        Record::WouldEnforce { .. } => 7,
        Record::CpuDead { .. } => 8,
        Record::CpuOnline { .. } => 9,
        Record::CgroupAdded { .. } => 10,
        Record::CgroupDying { .. } => 11,
        Record::CgroupRemoved { .. } => 12,
        Record::Healed { .. } => 13,
        Record::Lost { .. } => 14,
        Record::EngineAdopted { .. } => 15,
        Record::PartFailed { .. } => 16,
        Record::PartRecovered { .. } => 17,
        Record::ConfigChanged { .. } => 18,
        Record::ConfigReloaded { .. } => 19,
        Record::ConfigRefused { .. } => 20,
        Record::Ended => 21,
    }
}

/// How many records of each kind there were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts([u64; KINDS.len()]);

impl Counts {
    pub(super) fn count(&mut self, record: &Record) {
        self.0[number(record)] += 1;
    }

    /// Every kind with its number, those that never were included.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::every_kind;

    #[test]
    fn the_names_are_those_of_the_stream() {
        let mut counts = Counts::default();
        for record in every_kind() {
            let json = serde_json::to_value(&record).unwrap();
            assert_eq!(json["kind"], KINDS[number(&record)]);
            counts.count(&record);
        }
        assert!(counts.iter().all(|(_, count)| count > 0));
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), every_kind().len() as u64);
    }
}
