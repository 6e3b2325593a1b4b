//! `cargo xtask bench fault`: the cost of a page's programs, to a few nanoseconds.
//!
//! `calls` runs them with the arguments of the tracepoints, at a low background cost, on one busy CPU and on all,
//! beside the programs of bpftrace and bcc on request. `faults` lets the kernel run them at real page faults, and
//! reads its run-time statistics.

#[path = "../support/calls.rs"]
mod calls;
mod faults;
#[path = "../support/loaded.rs"]
mod loaded;
#[path = "../support/programs.rs"]
mod programs;
mod sequences;

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use memstock::host;
use memstock_tests::bench::Common;

/// Measure the cost of the programs.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every variant once
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Times to load everything anew, each for a part of the rounds
    #[arg(long, default_value_t = 6)]
    loads: usize,
    /// Length of a slice of real faults, in milliseconds; a slice of calls is a fifth of it
    #[arg(long, default_value_t = 50, value_name = "MS")]
    slice: u64,
    /// Also measure the programs of bpftrace and bcc, where installed
    #[arg(long)]
    peers: bool,
    #[command(flatten)]
    common: Common,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (loads, rounds, slice) =
        if args.common.smoke { (1, 2, 5) } else { (args.loads, args.rounds, args.slice) };
    let slice = Duration::from_millis(slice);
    memstock_tests::live::alone(|| {
        host::require_privilege()?;
        let home = calls::Home::enter(sequences::LEVELS)?;
        let extent = (loads, rounds.div_ceil(loads));
        sequences::measure(extent, slice / 5, args.peers, &home)?;
        faults::measure(extent, slice, &home)
    })
}
