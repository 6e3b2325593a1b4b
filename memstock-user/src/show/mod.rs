//! Renders a sample: the same declarations as a table, as JSON, and as a closing summary. And what benches found:
//! as text and as pictures.

pub mod audit;
pub mod forecast;
pub mod json;
pub mod plot;
pub mod summary;
pub mod table;
pub mod table1;
