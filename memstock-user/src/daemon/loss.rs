//! Turns counters of losses into records: reports what has risen since the last look. Counts nothing itself.

use std::collections::BTreeMap;

use anyhow::Result;
use memstock_common::Loss;
use memstock_common::stat::Stat;

use crate::engine::Engine;
use crate::engine::sample::losses as losses_of;
use crate::journal::{Journal, Record};

/// The value last reported of each counter, by name.
#[derive(Debug, Default)]
pub struct Losses(BTreeMap<&'static str, u64>);

impl Losses {
    /// Takes everything counted so far as reported.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn until_now(engine: &Engine) -> Result<Self> {
        let mut losses = Self::default();
        losses.rises(losses_of(engine)?);
        Ok(losses)
    }

    /// Publishes a record for each counter that has risen. Returns whether events were among the losses.
    pub fn tell(&mut self, now: &[(Stat, u64)], journal: &Journal) -> bool {
        let mut are_events_lost = false;
        for (stat, by) in self.rises(now.to_vec()) {
            are_events_lost |= stat == Loss::EventsLost.stat();
            journal.publish(if stat == Loss::Healed.stat() {
                Record::Healed { nr_pages: by }
            } else {
                Record::lost(stat, by)
            });
        }
        are_events_lost
    }

    fn rises(&mut self, now: Vec<(Stat, u64)>) -> Vec<(Stat, u64)> {
        let rise = |(stat, value): (Stat, u64)| {
            let reported = self.0.insert(stat.name, value).unwrap_or_default();
            value.checked_sub(reported).filter(|&by| by > 0).map(|by| (stat, by))
        };
        now.into_iter().filter_map(rise).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_is_told_once() {
        let (lost, healed) = (Loss::EventsLost.stat(), Loss::Healed.stat());
        let mut losses = Losses::default();
        assert_eq!(losses.rises(vec![(lost, 0), (healed, 3)]), [(healed, 3)]);
        assert_eq!(losses.rises(vec![(lost, 2), (healed, 3)]), [(lost, 2)]);
        assert_eq!(losses.rises(vec![(lost, 7), (healed, 4)]), [(lost, 5), (healed, 1)]);
        assert_eq!(losses.rises(vec![(lost, 7), (healed, 4)]), []);
    }
}
