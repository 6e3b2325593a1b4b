//! What the model predicts for larger machines: shares of the ideal, sufficient batches, and its error for the one
//! machine with known figures.

use memstock::cli::Batch;
use memstock_tests::bench::model::{DEPTH, LOCAL_NS, PAGE_NS, REMOTE_NS, load, patch};
use serde::Serialize;

/// Numbers of CPUs.
pub const CPUS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Batches, in pages; 1 charges every page on the shared counters.
pub const BATCHES: [u32; 6] = [1, 8, 32, 64, 128, 256];
/// Sockets.
pub const SOCKETS: [usize; 2] = [1, 2];

/// The forecast.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// Cost of a page without shared counters, ns.
    pub page_ns: f64,
    /// Cost of a cache line from the same socket and from another, ns.
    pub transfer_ns: [f64; 2],
    /// Levels of cgroups.
    pub depth: usize,
    /// By sockets, then batch, then CPUs.
    pub shares: Vec<Share>,
    /// The batch that `--batch auto` chooses, and its share.
    pub auto: Vec<Share>,
    /// The check against the patch's figures.
    pub patch: Check,
}

/// The fraction of the ideal throughput that one machine reaches with one batch.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Share {
    /// Sockets.
    pub sockets: usize,
    /// Pages in a batch.
    pub batch: u32,
    /// Busy CPUs.
    pub cpus: usize,
    /// The fraction.
    pub share: f64,
}

/// The model applied to the patch's own figures: faults of 8 CPUs in 60 s.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Check {
    /// One operation on that machine's counter, fitted to the first two rows, ns.
    pub transfer_ns: f64,
    /// Other costs of memory cgroups there, fitted as well, ns per page.
    pub added_ns: f64,
    /// The third row as the model predicts it.
    pub expected: f64,
    /// The third row as measured.
    pub measured: f64,
    /// The error if 8 or 256 pages were uncharged at once, since that number is not known.
    pub errors: [f64; 2],
}

/// Computes the forecast.
pub fn forecast() -> Forecast {
    let of = |sockets, batch, cpus| {
        let share = load(batch, sockets).share(cpus);
        Share { sockets, batch, cpus, share }
    };
    let all = SOCKETS.iter().flat_map(|&sockets| {
        BATCHES.iter().flat_map(move |&batch| CPUS.iter().map(move |&cpus| (sockets, batch, cpus)))
    });
    let auto = SOCKETS.iter().flat_map(|&sockets| {
        CPUS.iter().map(move |&cpus| of(sockets, Batch::for_cpus(cpus), cpus))
    });
    let third =
        |uncharged| patch::expected(patch::fit(uncharged), patch::CHARGED_AT_ONCE, uncharged);
    let fit = patch::fit(patch::UNCHARGED_AT_ONCE);
    Forecast {
        page_ns: PAGE_NS,
        transfer_ns: [LOCAL_NS, REMOTE_NS],
        depth: DEPTH,
        shares: all.map(|(sockets, batch, cpus)| of(sockets, batch, cpus)).collect(),
        auto: auto.collect(),
        patch: Check {
            transfer_ns: fit.transfer_ns,
            added_ns: fit.added_ns,
            expected: third(patch::UNCHARGED_AT_ONCE),
            measured: patch::BOTH,
            errors: [8, 256].map(|uncharged| third(uncharged) / patch::BOTH - 1.0),
        },
    }
}
