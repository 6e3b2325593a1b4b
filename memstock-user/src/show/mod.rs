//! Renders a sample: the same declarations as a table, as JSON, as metrics, and as a closing summary.

pub mod audit;
pub mod json;
pub mod metrics;
pub mod summary;
pub mod table;

#[cfg(test)]
mod schema;
