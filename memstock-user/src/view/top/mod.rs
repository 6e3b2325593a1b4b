//! The live view of a running engine: what `memstock top` shows, on a terminal or as plain samples.
//!
//! Data flows one way: [`source`] (one reading) → [`rates`] (the difference of two) → [`tree`] (rows, by
//! sort, fold and filter) → [`draw`] or [`plain`]. [`app`] is what the keys change, [`keys`] which key
//! changes what, [`terminal`] the screen and how it is given back, [`live`] the loop that joins them. Nothing
//! here writes to the engine but a drain that was asked for.

pub mod app;
pub mod column;
pub mod draw;
pub mod keys;
pub mod live;
pub mod plain;
pub mod rates;
pub mod source;
pub mod terminal;
pub mod text;
pub mod tree;

#[cfg(test)]
mod fixture;
