//! What `memstock-workload` does: faults, and nothing that is not asked for.

pub mod churn;
pub mod cpus;
pub mod pages;
pub mod serve;
pub mod signal;
