//! Renders a sample: the same declarations as a table, as JSON, and as a closing summary.

pub mod audit;
pub mod fleet;
pub mod json;
pub mod kernel;
pub mod recommend;
pub mod rehearse;
pub mod rehearsed;
pub mod replay;
pub mod stat;
pub mod summary;
pub mod table;
pub mod verify;

/// What follows a verdict that comes from two peaks.
const NEXT: &str = "which limit to set: `memstock record`, then `memstock recommend`";

#[cfg(test)]
pub(crate) mod schema;
