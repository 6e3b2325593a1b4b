//! Shared code of the benches: `slices` and `statistics` are their method (ADR 0016), `workers` the load, `run_stats`
//! what it counts, and `peers` the tools to compare with.

pub mod peers;
pub mod run_stats;
pub mod slices;
pub mod statistics;
pub mod workers;

/// The tracepoints of a page that is mapped and touched.
pub const HOT_TRACEPOINTS: [&str; 3] = ["page_fault_user", "mm_page_alloc", "mm_page_free"];
/// The tracepoints of a page of page cache.
pub const CACHE_TRACEPOINTS: [&str; 3] =
    ["mm_filemap_add_to_page_cache", "mm_page_alloc", "mm_page_free"];

/// Flags of every bench.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Common {
    /// Run everything only briefly, to see that it works
    #[arg(long)]
    pub smoke: bool,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    pub bench: bool,
}
