//! What the model of larger machines says: shares of the ideal, batches that are enough, and how far off
//! it was for the one machine of which figures are known.

use memstock::cli::Batch;
use memstock_tests::bench::model::{DEPTH, LOCAL_NS, PAGE_NS, REMOTE_NS, load, patch};
use serde::Serialize;

/// CPUs that are computed.
pub const CPUS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Pages charged at once; 1 with every page on the shared counters.
pub const BATCHES: [u32; 6] = [1, 8, 32, 64, 128, 256];
/// Sockets.
pub const SOCKETS: [usize; 2] = [1, 2];

/// The forecast.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// What a page costs without shared counters, ns.
    pub page_ns: f64,
    /// What a line of the same socket and one of another take, ns.
    pub transfer_ns: [f64; 2],
    /// Levels of cgroups.
    pub depth: usize,
    /// By sockets, then batch, then CPUs.
    pub shares: Vec<Share>,
    /// What `--batch auto` takes, and the share that it leaves.
    pub auto: Vec<Share>,
    /// The check.
    pub patch: Check,
}

/// The part of the ideal that one machine gets with one batch.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Share {
    /// Sockets.
    pub sockets: usize,
    /// Pages charged at once.
    pub batch: u32,
    /// Busy CPUs.
    pub cpus: usize,
    /// The part.
    pub share: f64,
}

/// What the model makes of the patch's own figures: faults of 8 CPUs in 60 s.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Check {
    /// One operation on that machine's counter, fitted to the first two rows, ns.
    pub transfer_ns: f64,
    /// What memory cgroups cost there beside it, fitted as well, ns a page.
    pub added_ns: f64,
    /// The third row as the model expects it.
    pub expected: f64,
    /// As it was measured.
    pub measured: f64,
    /// The same for other pages uncharged at once, which are not known: the error at 8 and at 256.
    pub errors: [f64; 2],
}

/// Computes it.
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
