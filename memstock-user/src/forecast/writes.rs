//! How fast a run wrote to files. All figures are in pages.

use std::collections::VecDeque;
use std::time::Duration;

use memstock_common::record::BLOCK_PAGES;

use crate::recording::{Access, AccessKind};

/// How long what was written is not clean yet: the kernel wakes the flusher, and 4 MiB take 40 ms at 100 MB/s.
const UNTIL_CLEAN: Duration = Duration::from_millis(50);

/// What became dirty, a page as often as it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// In the whole run.
    pub all: u64,
    /// The most in the time until it is clean.
    pub at_once: u64,
}

impl Writes {
    /// Those of a recording, by its sample.
    pub fn of(accesses: &[Access]) -> Self {
        let mut writes = Self::default();
        let (mut recent, mut now) = (VecDeque::new(), 0_u64);
        for access in accesses.iter().filter(|access| access.kind == AccessKind::Dirtied) {
            let pages = u64::from(access.pages).min(BLOCK_PAGES) * u64::from(access.one_in);
            writes.all = writes.all.saturating_add(pages);
            now = now.saturating_add(pages);
            recent.push_back((access.at, pages));
            while let Some((_, clean)) =
                recent.pop_front_if(|(at, _)| access.at.saturating_sub(*at) > UNTIL_CLEAN)
            {
                now = now.saturating_sub(clean);
            }
            writes.at_once = writes.at_once.max(now);
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_clean_again_does_not_count() {
        let access = |kind, ms, pages| Access {
            at: Duration::from_millis(ms),
            kind,
            pages,
            one_in: 4,
            file: 0,
            index: 0,
        };
        let dirtied = |ms, pages| access(AccessKind::Dirtied, ms, pages);
        let accesses = [
            dirtied(0, 2),
            dirtied(50, 1),
            access(AccessKind::Read, 51, 16),
            dirtied(51, 1),
            dirtied(200, 1),
        ];
        assert_eq!(Writes::of(&accesses), Writes { all: 20, at_once: 12 });
        assert_eq!(Writes::of(&[]), Writes::default());
    }
}
