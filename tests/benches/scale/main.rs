//! `cargo xtask bench scale`: the cost of a page and of a drain with many cgroups, levels, slots and CPUs, and whether a
//! drain interrupts other CPUs.

#[path = "../support/calls.rs"]
mod calls;
mod drains;
#[path = "../support/loaded.rs"]
mod loaded;
mod pages;
#[path = "../support/programs.rs"]
mod programs;

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use memstock::host;
use memstock_tests::bench::Common;

/// Measure costs at scale.
#[derive(Parser)]
struct Args {
    /// Rounds; each runs every variant once
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Length of a slice in milliseconds
    #[arg(long, default_value_t = 10, value_name = "MS")]
    slice: u64,
    #[command(flatten)]
    common: Common,
}

/// How much is measured.
struct Effort {
    rounds: usize,
    slice: Duration,
    /// Numbers of tracked cgroups.
    cgroups: &'static [usize],
    /// Levels of tracked cgroups, at most [`pages::DEEPEST`].
    depths: &'static [usize],
    /// Stock slots per CPU.
    slots: &'static [u32],
    /// Drains of all CPUs.
    drains: u32,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let effort = if args.common.smoke {
        Effort {
            rounds: 2,
            slice: Duration::from_millis(1),
            cgroups: &[1, 100],
            depths: &[2],
            slots: &[8],
            drains: 100,
        }
    } else {
        Effort {
            rounds: args.rounds,
            slice: Duration::from_millis(args.slice),
            cgroups: &[1, 10, 100, 1_000, 10_000],
            depths: &[1, 2, 4, pages::DEEPEST],
            slots: &[1, 8, 64],
            drains: 20_000,
        }
    };
    memstock_tests::live::alone(|| {
        host::require_privilege()?;
        let home = calls::Home::enter(pages::DEEPEST)?;
        pages::measure(&effort, &home)?;
        drains::measure(&effort, &home)
    })
}
