//! The live view of a running engine: what `memstock top` shows, on a terminal or as plain samples.
//!
//! Data flows one way: [`source`] (one reading) → [`rates`] (the difference of two) → [`tree`] (rows: sorted, folded
//! and filtered) → [`draw`] or [`plain`]. [`app`] is the state, [`keys`] changes it, [`terminal`] takes and restores
//! the screen, [`live`] is the loop around them. Nothing here changes the engine except a requested drain.

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
