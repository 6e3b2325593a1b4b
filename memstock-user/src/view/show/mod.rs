//! What the verbs print: tables, JSON and summaries.

pub mod audit;
pub mod fleet;
pub mod json;
pub mod kernel;
pub mod observed;
pub mod recommend;
pub mod rehearse;
pub mod replay;
pub mod stat;
pub mod summary;
pub mod table;
pub mod verify;

/// Advice below a verdict that is based on peaks alone.
const NEXT: &str = "which limit to set: `memstock record`, then `memstock recommend`";

#[cfg(test)]
pub(crate) mod schema;
