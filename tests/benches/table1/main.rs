//! `cargo xtask bench table1`: the table of the patch that memstock is modelled on, on this machine.
//!
//! A task on each CPU maps, touches and unmaps pages, in cgroups made for it. In short slices, in turns, something or
//! nothing is attached, and the throughput of neighbouring slices is compared.

mod bars;
#[path = "../support/empty.rs"]
mod empty;
#[path = "../support/loaded.rs"]
mod loaded;
mod machine;
mod measure;
mod output;
mod places;
mod text;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use memstock::host;
use memstock::host::cgroup::CgroupMount;
use memstock_tests::bench::Common;
use memstock_tests::bench::peers::Peer;
use memstock_tests::cgroup::OF_BENCH;

use measure::{Effort, Table1, measure};
use places::Places;

/// Measure the patch's table on this machine.
#[derive(Parser)]
struct Args {
    /// Times to measure each variant
    #[arg(long, value_name = "N", default_value_t = 30)]
    rounds: usize,
    /// Length of a slice in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50)]
    slice: u64,
    /// Pages to map, touch and unmap at a time
    #[arg(long, value_name = "N", default_value_t = 256)]
    pages: usize,
    /// Also measure with one busy CPU, before all of them
    #[arg(long)]
    one: bool,
    /// Also measure bpftrace, bcc and perf, where installed (some seconds more per round)
    #[arg(long)]
    peers: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Draw the main rows, of all CPUs, into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.common.smoke {
        (args.rounds, args.slice) = (1, 5);
    }
    memstock_tests::live::alone(|| {
        let table = table(&args)?;
        bars::draw(&table, args.svg.as_deref())?;
        output::print(args.json, &table, &table)
    })
}

fn table(args: &Args) -> Result<Table1> {
    host::require_privilege()?;
    let (peers, missing) = if args.peers { Peer::find() } else { Default::default() };
    for why in missing {
        eprintln!("left out: {why}");
    }
    let mount = CgroupMount::find()?;
    let top = mount.create(OF_BENCH)?;
    let online = host::cpus()?.online;
    let mut cpus = vec![&online[..]];
    if args.one && online.len() > 1 {
        cpus.insert(0, &online[..1]);
    }
    let effort =
        Effort { rounds: args.rounds, slice: Duration::from_millis(args.slice), pages: args.pages };
    let measured = Places::make(&mount, top.cgroup())
        .and_then(|places| measure(&effort, &cpus, &peers, &places));
    top.remove()?;
    measured
}
