//! Output: tables, JSON, metrics, `top`. Reads, and decides nothing.

pub mod metrics;
pub mod report;
pub mod show;
pub mod top;
