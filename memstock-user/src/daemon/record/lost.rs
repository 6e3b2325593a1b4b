//! Counts the losses that are reported at the end of a recording.

use anyhow::Result;
use memstock_common::Loss;

use crate::engine::Engine;

/// Losses of the engine that make its figures wrong.
const LOSSES: [Loss; 4] =
    [Loss::CountersMissing, Loss::PagesOutside, Loss::BlocksMixed, Loss::MovedUnseen];

/// The count of each since the engine was started.
pub(super) type Counts = [u64; LOSSES.len()];

/// The losses of an engine so far.
pub(super) fn of_engine(engine: &Engine) -> Result<Counts> {
    let mut all = [0; LOSSES.len()];
    for (count, loss) in all.iter_mut().zip(LOSSES) {
        *count = engine.loss(loss)?;
    }
    Ok(all)
}

/// What an engine lost between two looks, and what the recording itself lost, by name.
pub(super) fn named(before: Counts, after: Counts, own: [(&str, u64); 3]) -> Vec<(String, u64)> {
    let engines = LOSSES.iter().zip(after).zip(before);
    let engines =
        engines.map(|((loss, after), before)| (loss.stat().name, after.saturating_sub(before)));
    let all = engines.chain(own).filter(|&(_, count)| count > 0);
    all.map(|(name, count)| (name.to_owned(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_before_does_not_count() {
        let own = [("records", 0), ("samples", 3), ("charges", 0)];
        let outside = (Loss::PagesOutside.stat().name.to_owned(), 2);
        assert_eq!(named([5, 1, 0, 9], [5, 3, 0, 9], own), [outside, ("samples".to_owned(), 3)]);
    }
}
