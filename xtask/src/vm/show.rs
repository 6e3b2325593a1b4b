//! `memstock run` in a guest, for users who cannot run it on the host.

use std::ffi::OsString;

use anyhow::{Context as _, Result, bail};

use super::{Cgroups, Guest, Preempt, Work, boot};
use crate::setup::BpfToolchain;
use crate::test::tally::Tally;

/// The guest's folder with memstock and the workload.
pub const PROGRAMS: &str = "/memstock/release";

/// Runs `memstock run` with these arguments in a guest, and prints its output. It uses the debug build, which exists.
///
/// # Errors
/// If no guest can run here, or memstock fails in the guest.
pub fn show(bpf: &BpfToolchain, args: &[OsString]) -> Result<()> {
    // Few enough CPUs for emulation, and enough to show that each has its own stock.
    let guest = Guest { memory: 1024, ..Guest::of("6.1", 2, Cgroups::V2, Preempt::Voluntary) };
    let work = Work { shows: true, dev: true, args: args.to_vec(), ..Work::default() };
    let mut tally = Tally::default();
    boot(&mut tally, bpf, &guest, &work)
        .context("no guest can run here either: use `cargo xtask run` on a host that allows BPF")?;
    if tally.failed() > 0 {
        bail!("in the guest: {}", tally.failures().join("; "));
    }
    Ok(())
}
