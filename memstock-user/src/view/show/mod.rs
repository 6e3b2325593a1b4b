//! Renders a sample: the same declarations as a table, as JSON, and as a closing summary.

pub mod audit;
pub mod fleet;
pub mod json;
pub mod kernel;
pub mod recommend;
pub mod rehearse;
pub mod rehearsed;
pub mod stat;
pub mod summary;
pub mod table;
pub mod verify;

#[cfg(test)]
pub(crate) mod schema;
