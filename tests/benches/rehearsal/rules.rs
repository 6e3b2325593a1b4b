//! Who says from which limit on a program lives, and which limit to set: memstock, and what people do without it.

use crate::cells::near;
use crate::record::Recording;

pub struct Rule {
    pub name: &'static str,
    /// From this limit on it is said to live, in bytes.
    pub lives_from: fn(&Recording) -> u64,
    /// The limit that would be set, in bytes.
    pub recommends: fn(&Recording) -> u64,
}

pub const MEMSTOCK: Rule = Rule {
    name: "needed + 3 %",
    lives_from: |recording| recording.needed,
    recommends: |recording| recording.needed + near(recording.needed),
};

/// memstock's first.
pub const RULES: [Rule; 4] = [
    MEMSTOCK,
    // Usage alone: as memstock itself had it.
    Rule { name: "peak", lives_from: |r| r.peak, recommends: |r| r.peak },
    Rule {
        name: "peak × 1.15",
        lives_from: |r| with_margin(r.peak),
        recommends: |r| with_margin(r.peak),
    },
    Rule {
        name: "largest RSS × 1.15",
        lives_from: |r| with_margin(r.max_rss.unwrap_or(0)),
        recommends: |r| with_margin(r.max_rss.unwrap_or(0)),
    },
];

fn with_margin(bytes: u64) -> u64 {
    bytes * 115 / 100
}
