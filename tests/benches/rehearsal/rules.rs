//! Who says from which limit on a program lives, and which limit to set: memstock, and what people do without it.

use crate::record::Recording;

pub struct Rule {
    pub name: &'static str,
    /// What it takes for the smallest limit at which the program lives, in bytes.
    pub boundary: fn(&Recording) -> u64,
    /// From this limit on it is said to live, in bytes: what would be set.
    pub lives_from: fn(&Recording) -> u64,
}

pub const MEMSTOCK: Rule =
    Rule { name: "needed + 3 %, 6 MiB", boundary: |r| r.needed, lives_from: |r| r.lives_from };

/// With a margin for other loads, and room for the page cache that is worth keeping.
pub const RECOMMEND: Rule =
    Rule { name: "recommend", boundary: |r| r.needed, lives_from: |r| r.recommended };

/// memstock's first.
pub const RULES: [Rule; 5] = [
    MEMSTOCK,
    RECOMMEND,
    // Usage alone: as memstock itself had it.
    Rule { name: "peak", boundary: |r| r.peak, lives_from: |r| r.peak },
    Rule {
        name: "peak × 1.15",
        boundary: |r| with_margin(r.peak),
        lives_from: |r| with_margin(r.peak),
    },
    Rule {
        name: "largest RSS × 1.15",
        boundary: |r| with_margin(r.max_rss),
        lives_from: |r| with_margin(r.max_rss),
    },
];

fn with_margin(bytes: u64) -> u64 {
    bytes * 115 / 100
}
