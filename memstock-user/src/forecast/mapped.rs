//! Estimates how much mapped page cache is read again. Its use is not seen (`docs/rehearsal.md`): the text and data
//! that a program works with are assumed to be in constant use, so what a limit leaves no room for is read at least
//! once more, and over and over if that lasts.

use std::time::Duration;

use super::uses::{Taken, Uses};

/// The assumed interval between two touches of a page: that of `git` with its objects (ADR 0030).
const PERIOD: Duration = Duration::from_millis(250);

/// Pages read again at a limit of `limit` pages, in each of `parts` equal parts of a run that ended at `end`.
pub fn rereads(uses: &Uses, limit: u64, end: Duration, parts: usize) -> Vec<f64> {
    let mut by_time = vec![0.0; parts];
    let width = end.as_secs_f64() / parts as f64;
    let ends = uses.taken.iter().skip(1).map(|next| next.from).chain([end]);
    for (taken, end) in uses.taken.iter().zip(ends) {
        let missing = missing(taken, limit);
        if missing == 0 || width == 0.0 {
            continue;
        }
        let (from, end) = (taken.from.as_secs_f64() / width, end.as_secs_f64() / width);
        let parts = by_time.iter_mut().enumerate();
        for (n, pages) in parts.skip(from as usize).take_while(|(n, _)| (*n as f64) < end) {
            let share = (end.min(n as f64 + 1.0) - from.max(n as f64)).max(0.0);
            *pages += missing as f64 * share * width / PERIOD.as_secs_f64();
        }
    }
    let most = uses.taken.iter().max_by_key(|taken| missing(taken, limit));
    if let Some(taken) = most.filter(|_| width > 0.0) {
        let part = ((taken.from.as_secs_f64() / width) as usize).min(parts - 1);
        by_time[part] += (missing(taken, limit) as f64 - by_time.iter().sum::<f64>()).max(0.0);
    }
    by_time
}

/// The most mapped pages, text among them, without room at any time.
pub fn most_missing(uses: &Uses, limit: u64) -> u64 {
    uses.taken.iter().map(|taken| missing(taken, limit)).max().unwrap_or(0)
}

fn missing(taken: &Taken, limit: u64) -> u64 {
    taken.all().saturating_sub(limit).min(taken.in_use())
}

/// Whether there is a time without room for program text, though it is what reclaim finds last.
pub fn lacks_text(uses: &Uses, limit: u64) -> bool {
    let lacks = |taken: &Taken| taken.text() > limit.saturating_sub(taken.needed);
    uses.taken.iter().any(lacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_read_each_time_that_it_is_touched() {
        let taken = |ms, needed, mapped: u64| {
            let from = Duration::from_millis(ms);
            Taken { from, needed, cached: mapped, mapped: mapped / 2, text: mapped / 2 }
        };
        let end = Duration::from_secs(2);
        let uses = |taken| Uses { taken, ..Uses::default() };
        let long = uses(vec![taken(0, 10, 0), taken(500, 10, 20), taken(1500, 10, 0)]);
        let at = |limit| rereads(&long, limit, end, 4);
        assert_eq!(at(30), [0.0; 4]);
        // 5 pages, touched 4 times in a second.
        assert_eq!(at(25), [0.0, 10.0, 10.0, 0.0]);
        assert_eq!((at(0), most_missing(&long, 0)), (vec![0.0, 40.0, 40.0, 0.0], 20));
        assert_eq!(rereads(&long, 0, Duration::ZERO, 2), [0.0; 2]);
        let short = uses(vec![taken(0, 10, 0), taken(1900, 10, 20)]);
        assert_eq!(rereads(&short, 20, end, 4), [0.0, 0.0, 0.0, 10.0]);
        assert_eq!([20, 19].map(|limit| lacks_text(&short, limit)), [false, true]);
        // More text than there is page cache is not believed.
        let sampled = uses(vec![Taken { needed: 10, cached: 4, text: 9, ..Taken::default() }]);
        assert_eq!([14, 13].map(|limit| lacks_text(&sampled, limit)), [false, true]);
        let none = uses(vec![Taken { needed: 10, mapped: 10, ..Taken::default() }]);
        assert!(!lacks_text(&none, 5));
    }
}
