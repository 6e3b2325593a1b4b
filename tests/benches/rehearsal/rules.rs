//! The rules that predict at which limits a program lives, and set a limit: memstock's, and what people do without it.

use crate::record::Recording;

pub struct Rule {
    pub name: &'static str,
    /// Its estimate of the smallest limit at which the program lives, in bytes.
    pub boundary: fn(&Recording) -> u64,
    /// The limit from which on it predicts that the program lives, in bytes: what would be set.
    pub lives_from: fn(&Recording) -> u64,
}

pub const MEMSTOCK: Rule =
    Rule { name: "lives from", boundary: |r| r.needed, lives_from: |r| r.lives_from };

/// Adds a margin for other loads, and room for the page cache that is worth keeping.
pub const RECOMMEND: Rule =
    Rule { name: "recommend", boundary: |r| r.needed, lives_from: |r| r.recommended };

/// Without the margin for other loads, of which a bench has none.
pub const WITHOUT_MARGIN: Rule = Rule {
    name: "recommend --margin 0%",
    boundary: |r| r.needed,
    lives_from: |r| r.without_margin,
};

/// All rules, memstock's first.
pub const RULES: [Rule; 6] = [
    MEMSTOCK,
    RECOMMEND,
    WITHOUT_MARGIN,
    // By usage alone, as memstock once did.
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
