//! What benches have in common. `slices` and `statistics` are their method (ADR 0016), `workers` the load, `misses` and
//! `run_stats` what is counted of it, `peers` what people use otherwise, and `model` is of machines that are not at hand.

pub mod misses;
pub mod model;
pub mod peers;
pub mod run_stats;
pub mod slices;
pub mod statistics;
pub mod workers;

/// The tracepoints that every page passes.
pub const HOT_TRACEPOINTS: [&str; 3] = ["page_fault_user", "mm_page_alloc", "mm_page_free"];

/// Flags that every bench has.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Common {
    /// A moment only of each, to see that it works
    #[arg(long)]
    pub smoke: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    pub bench: bool,
}
