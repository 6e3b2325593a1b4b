//! What benches found: as text and as pictures.

pub mod forecast;
pub mod plot;
pub mod table1;
