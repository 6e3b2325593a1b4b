//! Measuring what memstock costs. `slices` and `statistics` are the method, for this binary's benches and those
//! of the `tests` package alike; `workers` is the load and `places` its cgroups; `table1` and `peers` are what
//! `memstock bench table1` measures; `scaling` is a model of machines that are not at hand,
//! and `forecast` what it says.

pub mod forecast;
pub mod machine;
pub mod misses;
pub mod peers;
pub mod places;
pub mod scaling;
pub mod show;
pub mod slices;
pub mod statistics;
pub mod table1;
pub mod workers;

pub use slices::{Interrupted, Stop};
