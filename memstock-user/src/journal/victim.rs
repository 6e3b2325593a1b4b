//! The task that is killed at a limit, or would be: a part of records.

use serde::{Deserialize, Serialize};

/// A task that is killed, or would be.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Victim {
    /// Its process id.
    pub victim: i32,
    /// Its name.
    pub comm: String,
    /// Its resident pages.
    pub rss_pages: u64,
    /// Its swapped pages.
    pub swap_pages: u64,
    /// Pages of its page tables.
    pub page_table_pages: u64,
    /// Its `oom_score_adj`.
    pub oom_score_adj: i64,
}
