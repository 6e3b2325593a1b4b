//! memstock's user half: loads the kernel half, reads its maps and shows them.
//!
//! The modules are layers, and each uses only those below it (`ARCHITECTURE.md`): `cli`, `view`, `daemon`, `enforce`,
//! `audit`, `journal`, `forecast`, `engine`, `recording`, `model`, `host`; all may use `exit`.

pub mod audit;
pub mod cli;
pub mod daemon;
pub mod enforce;
pub mod engine;
pub mod exit;
pub mod forecast;
pub mod host;
pub mod journal;
pub mod model;
pub mod recording;
pub mod view;
