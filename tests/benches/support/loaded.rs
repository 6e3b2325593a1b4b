//! Loads engines that leave no pins, and an empty program.

use anyhow::{Context as _, Result};
use aya::programs::{RawTracePoint, loaded_programs};
use memstock::engine::load::{Loaded, Settings, load};
use memstock::engine::pins::Pins;
use memstock_tests::bench::run_stats::field;
use memstock_tests::bpf::load_empty;
use memstock_tests::cgroup::OF_BENCH;

/// Loads an engine that lives as long as the returned value, and leaves no pins even if we are killed.
pub fn engine(settings: Settings) -> Result<Loaded> {
    let bpffs = memstock::host::bpffs()?;
    let pins = Pins::at(bpffs.dir.join(OF_BENCH));
    let loaded = load(&pins, settings);
    pins.remove()?;
    bpffs.release()?;
    loaded
}

/// Loads the empty program, the baseline of what any program on a tracepoint costs.
pub fn empty() -> Result<RawTracePoint> {
    let program = load_empty().context("cannot load a program that does nothing")?;
    let id = field(&program, "prog_id")?;
    let info = loaded_programs().flatten().find(|info| u64::from(info.id()) == id);
    Ok(RawTracePoint::from_program_info(info.context("it is gone")?, "empty".into())?)
}
