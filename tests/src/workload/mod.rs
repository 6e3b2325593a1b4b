//! The verbs of `memstock-workload`: they cause the faults and hold the pages that were asked for, and no others.

pub mod arena;
pub mod churn;
pub mod cpus;
pub mod demo;
pub mod fuse;
pub mod grow;
pub mod hog;
pub mod hold;
mod lines;
pub mod page_cache;
pub mod pages;
pub mod reads;
pub mod serve;
pub mod share;
pub mod signal;
