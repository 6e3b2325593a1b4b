//! What `memstock-workload` does: faults and pages, and nothing that is not asked for.

pub mod arena;
pub mod churn;
pub mod cpus;
pub mod demo;
pub mod fuse;
pub mod grow;
pub mod hog;
pub mod hold;
mod lines;
pub mod pages;
pub mod reads;
pub mod serve;
pub mod share;
pub mod signal;
