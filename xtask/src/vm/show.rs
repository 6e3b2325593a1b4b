//! `memstock run` in a guest, for who may not run it on the host.

use std::ffi::OsString;

use anyhow::{Context as _, Result, bail};

use super::{Cgroups, Guest, Preempt, Work, boot};
use crate::setup::BpfToolchain;
use crate::test::tally::Tally;

/// Where a guest has memstock and the workload.
pub const PROGRAMS: &str = "/memstock/release";

/// Runs `memstock run` with these arguments in a guest, with its output on ours. It is built already, for release.
///
/// # Errors
/// There can be no guest here, or memstock did not end well in there.
pub fn show(bpf: &BpfToolchain, args: &[OsString]) -> Result<()> {
    // Few enough to get along emulated, and enough for each to have a stock of its own.
    let guest = Guest { memory: 1024, ..Guest::of("6.1", 2, Cgroups::V2, Preempt::Voluntary) };
    let work = Work { shows: true, dev: true, args: args.to_vec(), ..Work::default() };
    let mut tally = Tally::default();
    boot(&mut tally, bpf, &guest, &work).context(
        "no guest can be had here either: `cargo xtask run` on a host that grants BPF shows it",
    )?;
    if tally.failed() > 0 {
        bail!("in the guest: {}", tally.failures().join("; "));
    }
    Ok(())
}
