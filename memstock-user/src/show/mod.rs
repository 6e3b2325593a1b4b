//! Renders a sample: the same declarations as a table, as JSON, as metrics, and as a closing summary. And what
//! benches found: as text and as pictures.

pub mod audit;
pub mod doctor;
pub mod forecast;
pub mod json;
pub mod metrics;
pub mod plot;
pub mod rehearsed;
pub mod stat;
pub mod summary;
pub mod table;
pub mod table1;

#[cfg(test)]
mod schema;
